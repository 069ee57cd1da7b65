#!/bin/bash
# Weights that others made, end to end: evaluated, converted both ways, trained
# from, and mistakes. Usage: weights_test.sh PATH_TO_TRIREME GOLDENS FILES_PY
goldens=$PWD/$2
files=$PWD/$3
source "$(dirname "$0")/testing.sh" "$1"

for plan in tp cp pp dp; do
  echo "grid { $plan: 2 }" > $plan.textproto
done
for variant in sd35 flux; do
  echo "== $variant: output and gradients are diffusers', under every axis"
  python3 "$files" make "$goldens" $variant $variant
  forward=("$trireme" forward $variant --inputs $variant/inputs.safetensors
    --gradients --precision FP64)
  "${forward[@]}" --out one.safetensors > forward.txt
  expect_in forward.txt "2 samples through $variant: "
  python3 "$files" compare "$goldens" $variant one.safetensors \
    one.safetensors
  for plan in tp cp pp dp; do
    "${forward[@]}" --out $plan.safetensors --plan $plan.textproto > forward.txt
    python3 "$files" compare "$goldens" $variant $plan.safetensors \
      one.safetensors
  done
  mpirun --allow-run-as-root --oversubscribe -n 2 "${forward[@]}" \
    --out mpi.safetensors --plan tp.textproto > forward.txt
  cmp mpi.safetensors tp.safetensors || fail "processes differ from threads"

  echo "== $variant: to a run and back, and folder to folder, byte for byte"
  "$trireme" convert $variant $variant.run > convert.txt
  expect_in convert.txt "$variant.run, a run's folder"
  "$trireme" convert $variant.run $variant.back > convert.txt
  "$trireme" convert $variant.back $variant.copy --to weights > convert.txt
  diff -r $variant.back $variant.copy || fail "a copy differs"
  # What they were made of has its tensors in the same order.
  cmp <(tail -c 1000 $variant/transformer/*.safetensors) \
    <(tail -c 1000 $variant.back/transformer/*.safetensors) ||
    fail "weights changed on their way"
  "$trireme" forward $variant.run/checkpoints/step_00000000 \
    --inputs $variant/inputs.safetensors --out run.safetensors --gradients \
    --precision FP64 > forward.txt
  cmp run.safetensors one.safetensors || fail "a run computes something else"

  echo "== $variant: in shards and other types"
  "$trireme" convert $variant.run $variant.small --dtype BF16 \
    --shard_size 10KB > convert.txt
  [[ -s $variant.small/transformer/diffusion_pytorch_model.safetensors.index.json ]] ||
    fail "no index"
  "$trireme" forward $variant.small --inputs $variant/inputs.safetensors \
    --out small.safetensors > forward.txt
  "$trireme" convert $variant.small $variant.again --to weights > convert.txt
  diff -r $variant.small $variant.again || fail "a copy in shards differs"
done

echo "== mistakes"
expect_error "sd35.run: is there, expected a new folder" \
  "$trireme" convert sd35 sd35.run
expect_error "found neither a run (job.textproto)" "$trireme" convert . new
expect_error "ema.safetensors" "$trireme" convert sd35.run new --ema
expect_error "--dtype: found 'F8', expected F32, F16 or BF16" \
  "$trireme" convert sd35.run new --dtype F8
expect_error "has no moving average" "$trireme" convert sd35 new --ema
cp -r flux broken
change() { # change PYTHON: of `config`, that of broken
  cp flux/transformer/config.json broken/transformer/config.json
  python3 - "$1" <<'PYTHON'
import json, sys
path = "broken/transformer/config.json"
config = json.load(open(path))
exec(sys.argv[1])
json.dump(config, open(path, "w"))
PYTHON
}
change 'config["_class_name"] = "UNet2DModel"'
expect_error 'broken/transformer/config.json: _class_name: found "UNet2DModel", expected SD3Transformer2DModel or FluxTransformer2DModel' \
  "$trireme" convert broken new
change 'config["num_layer"] = 3'
expect_error "found field 'num_layer', which no FluxTransformer2DModel has (nearest: 'num_layers')" \
  "$trireme" convert broken new
change 'config["num_layers"] = "many"'
expect_error 'num_layers: found "many", expected a whole number' \
  "$trireme" convert broken new
change 'config["num_layers"] = 3'
expect_error "no tensor 'transformer_blocks.1" "$trireme" convert broken new
change 'config["patch_size"] = 2'
expect_error "patch_size: found 2, expected 1" "$trireme" convert broken new
change 'del config["guidance_embeds"]'
expect_error "found tensor 'time_text_embed.guidance_embedder" \
  "$trireme" convert broken new
[[ ! -e new ]] || fail "a failed conversion left a folder"
expect_error "hidden_states: found shape [2, 6, 8], expected 4 dimensions" \
  "$trireme" forward sd35 --inputs flux/inputs.safetensors --out out.safetensors
expect_error "--inputs: found none" "$trireme" forward sd35 --out out.safetensors
expect_error "inputs.safetensors" "$trireme" forward sd35 \
  --inputs no/inputs.safetensors --out out.safetensors

echo "passed"
