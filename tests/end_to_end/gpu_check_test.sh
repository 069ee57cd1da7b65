#!/bin/bash
# What a GPU's check writes of what its parts say, with stand-ins for them: JSON,
# with PyTorch's times over ours where both are known, and the status of a part
# that fails.
# Usage: gpu_check_test.sh GPU_CHECK
set -euo pipefail
check=$PWD/$1
work=$(mktemp -d /tmp/trireme.XXXXXX)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3=$(command -v python3)

mkdir bundle peers
cp "$check" bundle/gpu_check.sh
cat > bundle/run <<'SCRIPT'
#!/bin/bash
[[ $1 != op_cases_benchmark ]] || echo '{"case": "copy", "gb_per_s": 3000}'
[[ $1 == op_cases_benchmark ]] || echo '[       OK ] Some.Test (1 ms)'
[[ $1 != "${FAILING-}" ]]
SCRIPT
cat > bundle/gpu_speed.sh <<'SCRIPT'
#!/bin/bash
echo '{"run": "bf16", "steps": 12, "step_s": 0.25, "model_flops_per_s": 1e14}'
echo '{"run": "bf16_flux", "steps": 12, "step_s": 0.5, "model_flops_per_s": 1e14}'
echo '{"run": "bf16_2b", "ste'
SCRIPT
# A PyTorch that sees a GPU, and how long steps take in it.
cat > peers/python3 <<'SCRIPT'
#!/bin/bash
[[ $1 != -c ]] || exit "${TORCH_STATUS-0}"
while [[ $1 != --models ]]; do shift; done
[[ $2 == dit_xl2 ]] && step=0.4 ||
  { echo '{"not_measured": {"mmdit_flux.bf16": "no diffusers"}}'; exit; }
echo "{\"$2.bf16.threads1.autocast.step_s\": 0.5, \"$2.bf16.threads1.step_s\": $step, \"not_measured\": {}}"
SCRIPT
chmod +x bundle/* peers/python3

expect() { # expect FILE CONDITION
  "$python3" - "$@" <<'PYTHON'
import json, sys
found = json.load(open(sys.argv[1]))
assert eval(sys.argv[2], {"found": found}), (sys.argv[2], found)
PYTHON
}

PATH=$work/peers:$PATH bundle/gpu_check.sh both.json > log.txt
expect both.json 'abs(found["peers"]["dit_xl2"]["ratio"] - 1.6) < 1e-9'
expect both.json 'found["peers"]["mmdit_flux"]["ratio"] is None'
expect both.json '"mmdit_flux.bf16" in found["peers"]["mmdit_flux"]["figures"]["not_measured"]'
expect both.json '[run["run"] for run in found["speed"]] == ["bf16", "bf16_flux"]'
expect both.json 'found["kernels"][0]["gb_per_s"] == 3000'
expect both.json 'all(t["passed"] == 1 and t["status"] == 0 for t in found["tests"])'

# Without PyTorch, and with a test that fails.
status=0
TORCH_STATUS=1 FAILING=ptx_test PATH=$work/peers:$PATH \
  bundle/gpu_check.sh none.json > log.txt || status=$?
((status == 1)) || { echo "status $status" >&2; exit 1; }
expect none.json 'found["peers"]["dit_xl2"] == {"run": "bf16", "ratio": None, "figures": None}'
expect none.json '[t["test"] for t in found["tests"] if t["status"]] == ["ptx_test"]'
