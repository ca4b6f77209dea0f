#!/bin/sh
# The real kube-apiserver, kube-controller-manager and etcd for the tests, from Debian 12's packages and its source of
# Kubernetes, with Debian's Go. 10 to 20 minutes once; kept outside the repository. Needs no root and installs nothing.
#
#     tests/cluster/build.sh            into ~/.cache/mainspring-cluster/bin
set -eu
place="${MAINSPRING_TESTS_KUBERNETES:-${XDG_CACHE_HOME:-$HOME/.cache}/mainspring-cluster}"
bin="$place/bin" work="$place/work"
if [ -x "$bin/kube-apiserver" ] && [ -x "$bin/kube-controller-manager" ] && [ -x "$bin/etcd" ]; then
    echo "$bin"
    exit 0
fi
mkdir -p "$bin" "$work/debs" "$work/apt/parts" "$work/apt/lists/partial" "$work/apt/cache/archives/partial"

# The machine's own mirrors, with their sources; its own lists stay as they are.
if [ -f /etc/apt/sources.list.d/debian.sources ]; then
    sed 's/^Types:.*/Types: deb deb-src/' /etc/apt/sources.list.d/debian.sources >"$work/apt/parts/debian.sources"
else
    grep '^deb ' /etc/apt/sources.list | sed 'p;s/^deb /deb-src /' >"$work/apt/parts/debian.list"
fi
apt() {
    command="$1"
    shift
    "$command" -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$work/apt/parts" \
        -o Dir::State::lists="$work/apt/lists" -o Dir::Cache="$work/apt/cache" -o APT::Sandbox::User=root \
        -o Debug::NoLocking=1 -qq "$@" >&2
}
version="1.20.5+really1.20.2"
cd "$work/debs"
if ! ls kubernetes_"$version"*.orig.tar.gz >/dev/null 2>&1; then
    apt apt-get update
    apt apt-get download golang-1.19-go golang-1.19-src etcd-server golang-github-modern-go-reflect2-dev
    apt apt-get source --download-only kubernetes
fi
if ! ls kubernetes_"$version"*.orig.tar.gz >/dev/null 2>&1; then
    echo "Debian 12 has Kubernetes $version, this system another: the tests know its flags, so build it there" >&2
    exit 1
fi

go="$work/go" tree="$work/gopath/src/k8s.io/kubernetes"
if [ ! -d "$tree" ]; then
    for deb in *.deb; do dpkg -x "$deb" "$go"; done
    mkdir -p "$tree.part"
    tar xzf kubernetes_"$version"*.orig.tar.gz -C "$tree.part" --strip-components=1
    # The vendored reflect2 reads the runtime's maps as Go before 1.18 laid them out, and crashes the server.
    rm -r "$tree.part/vendor/github.com/modern-go/reflect2"
    cp -r "$go/usr/share/gocode/src/github.com/modern-go/reflect2" "$tree.part/vendor/github.com/modern-go/"
    mv "$tree.part" "$tree"
fi
export GOROOT="$go/usr/lib/go-1.19" GOPATH="$work/gopath" GOCACHE="$work/gocache" GO111MODULE=off CGO_ENABLED=0
export GOFLAGS="-p=2" GOPROXY=off
cd "$tree"

# The one generated file that the source archive lacks.
openapi=pkg/generated/openapi
if [ ! -s "$openapi/zz_generated.openapi.go" ]; then
    "$GOROOT/bin/go" build -o "$work/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
    packages=$(grep --include='*.go' -Rl '+k8s:openapi-gen=' pkg cmd plugin staging/src/k8s.io |
        grep -Ev '/(code-generator|sample-apiserver|sample-controller|_examples|testdata)/|_test\.go$|zz_generated' |
        xargs -n1 dirname | LC_ALL=C sort -u | sed 's,^staging/src/,vendor/,;s,^,k8s.io/kubernetes/,' | paste -sd,)
    "$work/openapi-gen" --v 1 --logtostderr -i "$packages" -p "k8s.io/kubernetes/$openapi" -O zz_generated.openapi \
        -h vendor/k8s.io/code-generator/hack/boilerplate.go.txt -r "$work/violations.report"
fi
stamp="-X k8s.io/component-base/version.gitVersion=v1.20.2 -X k8s.io/component-base/version.gitMajor=1"
stamp="$stamp -X k8s.io/component-base/version.gitMinor=20"
for name in kube-apiserver kube-controller-manager; do
    "$GOROOT/bin/go" build -ldflags "-s -w $(echo "$stamp" | sed 's,k8s.io/component-base,k8s.io/kubernetes/vendor/&,g') $stamp" \
        -o "$work/$name" "./cmd/$name"
done
cp "$go/usr/bin/etcd" "$bin/etcd"
mv "$work/kube-apiserver" "$work/kube-controller-manager" "$bin/"
rm -rf "$work"
echo "$bin"
