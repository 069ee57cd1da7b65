#!/bin/bash
# Tests of the CUDA backend on the emulated GPU, in groups, of which each is
# another configuration, and what they took. With no group: ops.
# Usage: emulated.sh [ci] [ops] [training] [seeds] [sanitizers] [races]
#   ci          ops, seeds, sanitizers and races, as CI has them
#   ops         the emulator, the device, NCCL and every op
#   training    models under the main plans on 1 to 4 GPUs, lazily and under one
#               seed each; the program end to end; what it profiles
#   seeds       the models lazily and under 8 seeds each
#   sanitizers  ops with AddressSanitizer and UndefinedBehaviorSanitizer
#   races       ThreadSanitizer with a thread for each of the GPU's: the emulator,
#               the device, and every op once, in fp32 and bf16
# Fails where one does, after the others.
set -uo pipefail
cd "$(dirname "$0")/../.."

readonly device=(//runtime/device/cuda/emulation:emulated_gpu_test
  //runtime/device/cuda:cuda_device_test //runtime/device/cuda:ptx_test)
readonly ops=("${device[@]}" //runtime/ops/cuda:cuda_ops_test
  //runtime/ops/cuda:cuda_float8_test //runtime/comm/nccl:nccl_test)
readonly parity=//tests/parity:cuda_parity_test
readonly of_training=(//trainer/profile:cuda_profile_test
  //tests/end_to_end:cuda_test)

emulated() { # emulated CONFIG ARGUMENT...
  tools/dev/bazel.sh test --keep_going --config="$1" "${@:2}"
}

# Both, whatever becomes of the first.
races() {
  local status=0
  emulated cuda_tsan //runtime/device/cuda/emulation:races_test \
    "${device[@]}" || status=$?
  emulated cuda_tsan //runtime/ops/cuda:cuda_ops_test \
    --test_arg=--gtest_filter='*IsNearWhatFp64Gives/*_fp32:*IsNearWhatFp64Gives/*_bf16' ||
    status=$?
  return "$status"
}

groups=()
for group in "${@:-ops}"; do
  if [[ $group == ci ]]; then
    groups+=(ops seeds sanitizers races)
  else
    groups+=("$group")
  fi
done

failed=0
for group in "${groups[@]}"; do
  begin=$SECONDS
  status=0
  case $group in
    ops) emulated cuda_emulated "${ops[@]}" || status=$? ;;
    training)
      emulated cuda_emulated "$parity" "${of_training[@]}" || status=$?
      ;;
    seeds) emulated cuda_emulated --config=full "$parity" || status=$? ;;
    sanitizers) emulated cuda_asan "${ops[@]}" || status=$? ;;
    races) races || status=$? ;;
    *)
      echo "emulated: found group '$group', expected ci, ops, training," \
        "seeds, sanitizers or races" >&2
      exit 2
      ;;
  esac
  echo "emulated GPU, $group: status $status, $((SECONDS - begin)) s"
  ((status == 0)) || failed=1
done
exit "$failed"
