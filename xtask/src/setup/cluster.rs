//! A real API server, and the controllers that go with it, for this checkout only: built from Debian's own source package,
//! since no package holds them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{install_programs, timed};
use crate::{machine, steps::run_silently};

/// What builds it, and what speaks to it.
const PACKAGES: [(&str, &str); 5] = [
    ("kubernetes-client", "kubectl"),
    ("golang-go", "go"),
    ("rsync", "rsync"),
    ("jq", "jq"),
    ("dpkg-dev", "dpkg-source"),
];

/// The convention of others that test with one.
const ASSETS: &str = "KUBEBUILDER_ASSETS";

/// Builds both in the folder `$1`, which is removed first, and puts the API server at `$2` and the controllers beside it.
///
/// The machine's sources of packages are asked for their source packages too, in a copy of their lists. Its reflect2 is older
/// than Debian's Go and crashes with it at the first object of a custom kind: it gets Debian's.
const BUILD: &str = r#"
set -eu
rm -rf "$1"
mkdir -p "$1/sources" "$1/lists/partial"
for list in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
    [ -f "$list" ] || continue
    sed -E 's/^Types: *deb$/Types: deb-src/; s/^deb /deb-src /' "$list" > "$1/sources/${list##*/}"
done
apt() {
    apt-get -qq -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$1/sources" \
        -o Dir::State::lists="$1/lists" -o APT::Sandbox::User=root -o pkgCacheFile= -o srcpkgcache= "$2" $3
}
apt "$1" update ""
cd "$1"
apt "$1" source kubernetes
apt-get -qq -o APT::Sandbox::User=root download golang-github-modern-go-reflect2-dev
dpkg -x golang-github-modern-go-reflect2-dev_*.deb reflect2
cd "$1"/kubernetes-*/
rm vendor/github.com/modern-go/reflect2/*.go vendor/github.com/modern-go/reflect2/*.s
cp "$1"/reflect2/usr/share/gocode/src/github.com/modern-go/reflect2/*.go \
    "$1"/reflect2/usr/share/gocode/src/github.com/modern-go/reflect2/*.s vendor/github.com/modern-go/reflect2/
mkdir -p .go/src/k8s.io
ln -sfn "$PWD" .go/src/k8s.io/kubernetes
export GOPATH="$PWD/.go" CGO_ENABLED=0 GOCACHE="$1/cache" GO111MODULE=off
unset GOFLAGS
cd .go/src/k8s.io/kubernetes
make WHAT="cmd/kube-apiserver cmd/kube-controller-manager"
mkdir -p "${2%/*}"
mv "$(readlink -f _output/bin/kube-controller-manager)" "${2%/*}/kube-controller-manager"
mv "$(readlink -f _output/bin/kube-apiserver)" "$2"
cd /
rm -rf "$1"
"#;

/// Puts an API server into `tools`, unless the environment names one or it is there, and installs what speaks to it.
///
/// # Errors
/// If this machine's packages do not hold its source, or it cannot be built.
pub(super) fn install(tools: &Path) -> Result<()> {
    let built = tools.join("cluster/kube-apiserver");
    // One that was built otherwise is built again.
    let recipe = tools.join("cluster/recipe");
    let is_whole = tools.join("cluster/kube-controller-manager").exists();
    if (fs::read_to_string(&recipe).unwrap_or_default() != BUILD || !is_whole) && built.exists() {
        fs::remove_file(&built).with_context(|| format!("{} cannot be removed", built.display()))?;
    }
    let server = env::var_os(ASSETS).map(|folder| PathBuf::from(folder).join("kube-apiserver"));
    let server = server.filter(|path| path.exists()).unwrap_or(built);
    let needed = if server.exists() { PACKAGES.get(..1).unwrap_or_default() } else { &PACKAGES[..] };
    install_programs(needed, false)?;
    if !server.exists() {
        if !machine::is_debian() {
            bail!("no kube-apiserver: name a folder that has one in {ASSETS}");
        }
        let source = tools.join("cluster/source");
        let what =
            "kube-apiserver and kube-controller-manager, built from Debian's source package kubernetes";
        timed(what, "7 min", || {
            fs::create_dir_all(tools)?;
            let folder = fs::canonicalize(tools)?;
            let (source, server) = (folder.join("cluster/source"), folder.join("cluster/kube-apiserver"));
            run_silently(Command::new("sh").args(["-c", BUILD, "sh"]).arg(source).arg(server))
        })
        .with_context(|| format!("in {}", source.display()))?;
        fs::write(recipe, BUILD)?;
    }
    eprintln!("kube-apiserver: {}", server.display());
    Ok(())
}
