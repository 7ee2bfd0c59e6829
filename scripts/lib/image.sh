# shellcheck shell=bash
# Container images without a registry: a root file system from the distribution's own packages
# (so that it carries a real dpkg database), packed as an archive that `docker load`,
# `podman load` and `ctr images import` accept.
#
# Sourced after common.sh. Archives are content-stable: the same layers and configuration give the
# same config digest on every load, which `docker import` would not (it stamps the time).

images_dir() {
    local dir
    dir=$(cache_dir)/images
    mkdir -p "$dir"
    printf '%s\n' "$dir"
}

# The apt sources of this very distribution, as configured on this machine (its mirror, its proxy):
# third-party repositories would only slow an image down, or be of another release.
distro_sources() {
    local id codename
    id=$(os_release ID)
    codename=$(os_release VERSION_CODENAME)
    local keyring=/usr/share/keyrings/$id-archive-keyring.gpg options=''
    [[ ! -e $keyring ]] || options="[signed-by=$keyring] "
    # shellcheck disable=SC2016 # apt's own placeholders
    apt-get indextargets --format '$(ORIGIN) $(REPO_URI) $(RELEASE) $(COMPONENT)' \
        'Created-By: Packages' 2>/dev/null |
        awk -v id="$id" -v code="$codename" -v options="$options" '
            tolower($1) == id && index($3, code) == 1 && !seen[$0]++ {
                print "deb " options $2, $3, $4 }'
}

# apt settings that decide whether a download works here: proxies, clock checks.
apt_acquire_options() {
    apt-config dump | grep -E '^Acquire::(http|https|Check|Retries|Languages)' || true
}

# debian_layer NAME PACKAGE...: print the path of a cached tar with those packages installed.
debian_layer() {
    local name=$1 key tar sources
    shift
    set -- passwd "$@" # without it there is no /etc/shadow, which every real image has
    have mmdebstrap || die "mmdebstrap is missing: run 'scripts/setup test' first"
    is_root || die "building $name needs root"
    sources=$(distro_sources)
    if [[ -z $sources ]]; then
        apt-get update -qq >&2
        sources=$(distro_sources)
        [[ -n $sources ]] || die "no apt source of this distribution is configured: is this Debian or Ubuntu?"
    fi
    key=$(printf '%s\n' layer-1 "$(os_release ID) $(os_release VERSION_CODENAME)" "$*" | sha256sum)
    tar=$(images_dir)/layer-$name-${key:0:12}.tar
    if [[ ! -s $tar ]]; then
        say "building the packages of $name (once, then cached) ..."
        local log=${tar%.tar}.log
        if ! make_debian_tar "$tar.part" "$sources" "$@" 2>"$log" >&2; then
            tail -n 15 "$log" >&2
            rm -f "$tar.part"
            die "mmdebstrap failed for $name; its log: $log"
        fi
        mv "$tar.part" "$tar"
        rm -f "$log"
    fi
    printf '%s\n' "$tar"
}

make_debian_tar() {
    local tar=$1 sources=$2 codename options
    shift 2
    codename=$(os_release VERSION_CODENAME)
    options=$(mktemp)
    apt_acquire_options >"$options"
    local args=(--mode=root --variant=essential --format=tar --quiet --aptopt="$options"
        --aptopt='APT::Install-Recommends "false"'
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*'
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*')
    local package
    for package in "$@"; do args+=(--include="$package"); done
    local status=0
    SOURCE_DATE_EPOCH=0 mmdebstrap "${args[@]}" "$codename" "$tar" - <<<"$sources" || status=$?
    rm -f "$options"
    return "$status"
}

# tree_layer NAME DIR: print the path of a cached tar of DIR, reproducible, owned by root.
tree_layer() {
    local tar part
    part=$(mktemp "$(images_dir)/tree-XXXXXX")
    tar -C "$2" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf "$part" .
    tar=$(images_dir)/tree-$1-$(sha256sum <"$part" | cut -c1-12).tar
    mv "$part" "$tar"
    printf '%s\n' "$tar"
}

# pack_image REFERENCE RUN_CONFIG_JSON LAYER...: print the path of a cached image archive.
# RUN_CONFIG_JSON is the OCI "config" object: Cmd, Entrypoint, Env, User, ExposedPorts, ...
pack_image() {
    local reference=$1 run=$2 layer key archive stage
    shift 2
    # A layer's name carries the digest of what made it, so the names are enough of a key.
    key=$(printf '%s\n' image-1 "$reference" "$run" "${@##*/}" | sha256sum)
    archive=$(images_dir)/$(tr '/:' '--' <<<"$reference")-${key:0:12}.tar
    if [[ ! -s $archive ]]; then
        stage=$(mktemp -d "$(images_dir)/stage-XXXXXX")
        local digests=() paths=() digest
        for layer in "$@"; do
            digest=$(sha256sum <"$layer" | cut -d' ' -f1)
            mkdir -p "$stage/$digest"
            ln "$layer" "$stage/$digest/layer.tar" 2>/dev/null ||
                cp --reflink=auto "$layer" "$stage/$digest/layer.tar"
            digests+=("sha256:$digest") paths+=("$digest/layer.tar")
        done
        image_config "$run" "${digests[@]}" >"$stage/config"
        digest=$(sha256sum <"$stage/config" | cut -d' ' -f1)
        mv "$stage/config" "$stage/$digest.json"
        jq -cn --arg config "$digest.json" --arg ref "$reference" '$ARGS.positional as $layers |
            [{Config: $config, RepoTags: [$ref], Layers: $layers}]' \
            --args "${paths[@]}" >"$stage/manifest.json"
        tar -C "$stage" -cf "$archive.part" manifest.json "$digest.json" "${paths[@]}"
        mv "$archive.part" "$archive"
        rm -rf "$stage"
    fi
    printf '%s\n' "$archive"
}

image_config() {
    local run=$1 arch
    shift
    arch=$(dpkg --print-architecture)
    jq -cn --argjson run "$run" --arg arch "$arch" '$ARGS.positional as $digests |
        { architecture: $arch, os: "linux", created: "2025-01-01T00:00:00Z", config: $run,
          rootfs: {type: "layers", diff_ids: $digests},
          history: [$digests[] | {created: "2025-01-01T00:00:00Z", created_by: "plimsoll"}] }' \
        --args "$@"
}
