//! Regular expressions of the built-in rules, and which names are no names of secrets.
//!
//! Forms of tokens are those that their providers document themselves.

/// Words that name a secret wherever they stand in a name.
const WORDS: &str = "passwords?|passwd|passphrase|secrets?|tokens?|api[-_]?keys?|access[-_]?keys?|\
    secret[-_]?keys?|private[-_]?keys?|account[-_]?keys?|encryption[-_]?keys?|credentials?|\
    (?:signing|master|session|app|storage|shared|hmac|license|jwt|unseal|auth|deploy|webhook)[-_]?keys?|\
    client-key-data";
/// Words that name a secret as the last part of a name only (`bypass`, `compass` and `PWD` do not).
const LAST: &str = "(?:[a-z0-9_.-]*[_.-])?(?:(?:db|ssh|key|store|user|root|admin|smtp|mail|ftp|require)?pass|masterauth|creds?|pat)|\
    [a-z0-9_.-]*[_.-](?:pwd|pw)|rediscli_auth|npm_config__auth|_auth";

/// Names of rules and regular expressions; `secret`, `quoted` or `plain` is what is masked (else
/// all), `name` what was named (see [`names_no_secret`]).
const FORMS: [(&str, &str); 21] = [
    (
        "private-key",
        r"(?s-u)-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(?P<secret>.*?)(?:-----END|\z)",
    ),
    // the same in base 64, by what it begins with
    (
        "private-key",
        r"(?-u)\bLS0tLS1CRUdJTi(?:BSU0EgUFJJVkFURSBLRV|BQUklWQVRFIEtFW|BFQyBQUklWQVRFIEtFW|BPUEVOU1NIIFBSSVZBVEUgS0VZ|BFTkNSWVBURUQgUFJJVkFURSBLRV|BEU0EgUFJJVkFURSBLRV)[A-Za-z0-9+/_-]*=*",
    ),
    ("private-key", r"\bAGE-SECRET-KEY-1[0-9A-Z]{50,}"),
    (
        "url-password",
        r"(?-u)[A-Za-z][A-Za-z0-9+.-]*://[^\s/@:'\x22]*:(?:(?P<secret>[^\s/?#'\x22]+)|(?P<plain>[^\s@'\x22]+))@",
    ),
    // a token instead of a user
    (
        "url-password",
        r"(?-u)[A-Za-z][A-Za-z0-9+.-]*://(?P<secret>[A-Za-z0-9_-]{20,})@",
    ),
    (
        "url-signature",
        r"(?i-u)[?&;](?:sig|signature|x-amz-signature|x-goog-signature)=(?P<secret>[^&\s'\x22]+)",
    ),
    (
        "authorization",
        r"(?i-u)authorization\s*[:=]\s*(?:(?:bearer|basic|digest|negotiate|token|apikey)\s+)?(?P<secret>[^\r\n'\x22]{4,})",
    ),
    (
        "header",
        r"(?im-u)(?:^|^-H|['\x22]|\s)(?:x-[a-z-]*(?:key|token|secret|auth)|(?:[a-z]+-)*(?:api-?key|private-token|job-token|deploy-token|subscription-key)|(?:set-)?cookie)\s*:\s*(?P<secret>[^\r\n'\x22]{4,})",
    ),
    (
        "json",
        r"(?i-u)\\?['\x22](?P<name>[a-z0-9_.-]*(?:WORDS)(?:[_.-][a-z0-9_.-]*)?|LAST|auth)\\?['\x22]\s*:\s*(?:\\\x22(?P<secret>[^\x22\\]+)\\\x22|\x22(?P<quoted>(?:[^\x22\\]|\\.)+)\x22|'(?P<plain>[^']+)')",
    ),
    (
        "yaml",
        r"(?im-u)(?:^|\\n|[{,])[ \t]*(?:-[ \t]+)?(?P<name>[a-z0-9_.-]*(?:WORDS)|LAST)[ \t]*:[ \t]+(?P<secret>[^\r\n,}\\]*[^\s,}\\])",
    ),
    (
        "assignment",
        r"(?i-u)(?P<name>[a-z0-9_.-]*(?:WORDS)(?:[_.-][a-z0-9_.-]*)?)\s?=\s?(?:\\?\x22(?P<secret>[^\x22]+)\x22|'(?P<quoted>[^']+)'|(?P<plain>[^\s;&|'\x22]+))",
    ),
    (
        "assignment",
        r"(?i-u)(?:^|[^a-z0-9_.-])(?P<name>-{0,2}(?:LAST))\s?=\s?(?:\\?\x22(?P<secret>[^\x22]+)\x22|'(?P<quoted>[^']+)'|(?P<plain>[^\s;&|'\x22]+))",
    ),
    (
        "connection-string",
        r"(?i-u)(?:^|[;\s'\x22])pwd\s?=\s?(?P<secret>[^/\s;'\x22][^\s;'\x22]*)",
    ),
    (
        "sql",
        r"(?i-u)\b(?:identified\s+(?:with\s+\S+\s+)?(?:by|as)|password)\s+(?:=\s*)?(?:'(?P<secret>[^']+)'|\x22(?P<quoted>[^\x22]+)\x22)",
    ),
    ("aws-key", r"(?-u)\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b"),
    (
        "google-key",
        r"(?-u)\bAIza[A-Za-z0-9_-]{35}|\bya29\.[A-Za-z0-9_-]{20,}|\bGOCSPX-[A-Za-z0-9_-]{20,}|\b1//0[A-Za-z0-9_-]{30,}",
    ),
    (
        "azure-secret",
        r"(?-u)\b[A-Za-z0-9_.~-]{3}[78]Q~[A-Za-z0-9_.~-]{31,34}",
    ),
    (
        "github-token",
        r"(?-u)\b(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255})\b",
    ),
    (
        "gitlab-token",
        r"(?-u)\bgl(?:pat|dt|rt|cbt|ptt|ft|imt|agent|soat|ffct)-[A-Za-z0-9_.-]{20,}",
    ),
    (
        "slack-token",
        r"(?-u)\bxox[abeoprs][-.][A-Za-z0-9.-]{10,}|\bxapp-[A-Za-z0-9-]{10,}|hooks\.slack\.com/(?:services|workflows)/(?P<secret>[A-Za-z0-9_/]{20,})",
    ),
    (
        "stripe-key",
        r"(?-u)\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,}|\bwhsec_[A-Za-z0-9+/]{24,}=*",
    ),
];

/// Tokens of further services, all under one name.
const SERVICES: &str = r"(?-u)\b(?:npm_[A-Za-z0-9]{36}|pypi-AgE[A-Za-z0-9_-]{50,}|rubygems_[0-9a-f]{48}|dckr_(?:pat|oat)_[A-Za-z0-9_-]{20,}|hv[sbr]\.[A-Za-z0-9_-]{20,}|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}|shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}|sk-(?:[a-z]+[0-9]*-)*[A-Za-z0-9_-]{20,}|gsk_[A-Za-z0-9]{40,}|hf_[A-Za-z0-9]{30,}|do[opr]_v1_[0-9a-f]{64}|lin_api_[A-Za-z0-9]{32,}|ATATT3x[A-Za-z0-9_=-]{50,}|PMAK-[0-9a-f]{24}-[0-9a-f]{34}|sbp_[0-9a-f]{40}|gl(?:c|sa)_[A-Za-z0-9_=+/-]{32,}|NRAK-[A-Z0-9]{27}|dapi[0-9a-f]{32}|dp\.(?:pt|st|ct|sa)\.[A-Za-z0-9_.-]{30,}|key-[0-9a-f]{32}|SK[0-9a-f]{32}|nvapi-[A-Za-z0-9_-]{40,}|pul-[0-9a-f]{40}|tskey-[a-z]+-[A-Za-z0-9-]{16,}|[0-9]{8,10}:AA[A-Za-z0-9_-]{33}|[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{60,})|discord(?:app)?\.com/api/webhooks/[0-9]+/(?P<secret>[A-Za-z0-9_-]{30,})";
/// Three parts (signed) to five (encrypted), the first of which is a JSON object.
const JWT: &str = r"(?-u)\beyJ[A-Za-z0-9_-]{8,}\.(?:eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?|[A-Za-z0-9_-]*\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,})";

/// The rules in the order in which they are applied, each name with its expression.
pub(super) fn built_in() -> impl Iterator<Item = (&'static str, String)> {
    let more = [("jwt", JWT), ("service-token", SERVICES)];
    FORMS.into_iter().chain(more).map(|(n, f)| (n, filled(f)))
}

/// An option whose argument is a secret.
pub(super) fn option() -> String {
    filled(
        r"(?i-u)\A--?(?:[a-z0-9._-]*(?:WORDS)(?:-(?:string|value|text))?|LAST|pwd|[a-z-]*[_.-]pwd|(?:[a-z]+-)?creds)\z",
    )
}

/// An argument or variable that is a name and, to its end, a value.
pub(super) fn pair() -> String {
    filled(
        r"(?is-u)\A(?P<name>-{0,2}(?:[a-z0-9_.-]*(?:WORDS)(?:[_.-][a-z0-9_.-]*)?|LAST))=(?P<secret>.+)\z",
    )
}

fn filled(form: &str) -> String {
    form.replace("WORDS", WORDS).replace("LAST", LAST)
}

/// `DB_PASSWORD_FILE` names a file, `TOKEN_TTL` a time, `max_tokens` a number: no secrets.
pub(super) fn names_no_secret(name: &[u8]) -> bool {
    const LASTS: [&[u8]; 17] = [
        b"file",
        b"path",
        b"dir",
        b"name",
        b"url",
        b"uri",
        b"ttl",
        b"length",
        b"count",
        b"timeout",
        b"policy",
        b"type",
        b"enabled",
        b"required",
        b"expiry",
        b"key_id",
        b"key-id",
    ];
    const SWITCHES: [&[u8]; 5] = [b"no-", b"use-", b"show-", b"with-", b"skip-"];
    let name = name.to_ascii_lowercase();
    let bare = name.strip_prefix(b"--").unwrap_or(&name);
    let of_a_model = [&b"max"[..], b"num", b"n_", b"n-", b"min"];
    LASTS.iter().any(|end| name.ends_with(end))
        || SWITCHES.iter().any(|s| bare.starts_with(s))
        || (bare.ends_with(b"tokens") && of_a_model.iter().any(|m| bare.starts_with(m)))
}
