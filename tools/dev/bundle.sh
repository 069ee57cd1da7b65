#!/bin/bash
# Packs the program, the tests of GPUs and the libraries that they need into one
# tar for nodes without a toolchain: x86-64 Linux with glibc 2.36 or newer. The
# driver, cuBLASLt 13 and NCCL are the node's.
# Usage: bundle.sh OUT.tar.xz [OPTION_OF_BAZEL...]
set -euo pipefail
out=$(realpath "${1:?OUT.tar.xz}")
shift
cd "$(dirname "$0")/../.."
targets=(//tools:trireme //runtime/device/cuda:ptx_test
  //runtime/device/cuda:cuda_device_test //runtime/ops/cuda:cuda_ops_test
  //runtime/ops:op_cases_benchmark
  //tests/parity:cuda_parity_test)
most_bytes=$((60 << 20))

tools/dev/bazel.sh build "$@" "${targets[@]}"
bin=$(tools/dev/bazel.sh info "$@" bazel-bin)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bundle=$work/trireme
mkdir -p "$bundle"/{bin,lib,openmpi/lib,openmpi/share}
for target in "${targets[@]}"; do
  path=${target#//}
  cp "$bin/${path/://}" "$bundle/bin/"
done
# OpenMPI finds its plug-ins by OPAL_PREFIX, its texts by OPAL_PKGDATADIR.
cp -rL /usr/lib/x86_64-linux-gnu/openmpi/lib/openmpi3 "$bundle/openmpi/lib/"
cp -rL /usr/share/openmpi "$bundle/openmpi/share/"
# All libraries but those of glibc, which must be the node's own.
ldd "$bundle"/bin/* "$bundle"/openmpi/lib/openmpi3/*.so |
  awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u |
  grep -vE '/(libc|libm|libdl|librt|libpthread|libresolv|libutil)\.so' |
  while read -r library; do cp -L "$library" "$bundle/lib/"; done
chmod -R u+w "$bundle"
find "$bundle/bin" "$bundle/lib" "$bundle/openmpi/lib" -type f -print0 |
  xargs -0 -n 1 strip --strip-unneeded 2> /dev/null || true
cat > "$bundle/run" <<'SCRIPT'
#!/bin/bash
# Runs a program of bin/ with the libraries of this folder, wherever it lies:
# run trireme --help
here=$(dirname "$(readlink -f "$0")")
export LD_LIBRARY_PATH=$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export OPAL_PREFIX=$here/openmpi OPAL_PKGDATADIR=$here/openmpi/share/openmpi
program=${1:?PROGRAM}
shift
exec "$here/bin/$program" "$@"
SCRIPT
cat > "$bundle/run_trireme" <<'SCRIPT'
#!/bin/bash
exec "$(dirname "$(readlink -f "$0")")/run" trireme "$@"
SCRIPT
cp tools/gpu_check.sh tools/gpu_speed.sh "$bundle/"
mkdir "$bundle/bench"
cp tools/bench/{stream_gaps,peer_step,peer_dit,peer_mmdit}.py "$bundle/bench/"
chmod +x "$bundle"/{run,run_trireme,gpu_check.sh,gpu_speed.sh}
cp -r examples "$bundle/"
XZ_OPT=-T0 tar -C "$work" -cJf "$out" trireme
bytes=$(stat -c %s "$out")
echo "$out: $((bytes >> 20)) MiB"
if ((bytes > most_bytes)); then
  echo "bundle: found $bytes bytes, expected at most $most_bytes" >&2
  exit 1
fi
