#!/bin/bash
# From known hardware to a plan that runs: describe a cluster, plan a job on it,
# ask why and what if, train under the plan, and mistakes.
# Usage: plan_test.sh PATH_TO_TRIREME
source "$(dirname "$0")/testing.sh" "$1"

cat > job.textproto <<'JOB'
model { dit { hidden: 32 layers: 4 heads: 4 patch: 7 } }
data {
  idx { folder: "/usr/share/datasets/fashion-mnist" split: "test" }
  resolution: 28
}
global_batch: 16
steps: 2
sample { at_end: false }
precision: FP32
JOB

echo "== cluster"
"$trireme" cluster describe --device A100 --nodes 2 --devices_per_node 2 \
  --network hdr --out cluster.textproto > cluster.txt
expect_in cluster.textproto 'name: "A100"'

echo "== plan, why, what if"
"$trireme" plan job.textproto --best 3 --why tp=2,pp=2 --sensitivity \
  --what_if 'link(0,1).bandwidth/=10' --charts chart_ > plan.txt
expect_in plan.txt "CHOSEN"
expect_in plan.txt "samples/s"
expect_in plan.txt "what if link(0,1).bandwidth/=10: 2.25e+10 -> 2.25e+09 B/s"
expect_in chart_timeline.svg "<svg"
expect_in chart_memory.svg "<svg"
python3 -c 'import json; json.load(open("chart_trace.json"))'
[[ ! -e plan.textproto ]] || fail "a question wrote a plan"
"$trireme" plan job.textproto > plan.txt
cp plan.textproto first.textproto
"$trireme" plan job.textproto > again.txt
cmp plan.textproto first.textproto || fail "two plans for one question"
"$trireme" plan job.textproto --why tp=4 > why.txt
if grep -q "INDIVISIBLE(tokens)" why.txt; then fail "tokens: $(cat why.txt)"; fi

echo "== what a person wrote or measured is kept"
echo "# mine" >> plan.textproto
if "$trireme" plan job.textproto > plan.txt 2> error.txt; then fail "mine"; fi
expect_in error.txt "plan.textproto there already"
"$trireme" plan job.textproto --overwrite > plan.txt
cmp plan.textproto first.textproto || fail "not overwritten"
cp cluster.textproto mine.textproto
echo "# mine" >> mine.textproto
for command in "cluster describe" profile; do
  # shellcheck disable=SC2086
  if "$trireme" $command --out mine.textproto > out.txt 2> error.txt; then
    fail "$command over an edited cluster"
  fi
  expect_in error.txt "mine.textproto there already"
done
"$trireme" cluster describe --device A100 --nodes 2 --devices_per_node 2 \
  --network hdr --out cluster.json > cluster.txt
"$trireme" plan job.textproto --cluster cluster.json --out plan.json > plan.txt
"$trireme" train job.textproto --plan plan.json --ranks 4 --dry_run > dry.txt

echo "== the plan runs"
"$trireme" launch job.textproto --ranks 4 --plan plan.textproto --out run \
  > run.txt
[[ $(wc -l < run/metrics.jsonl) == 2 ]] || fail "not two steps"

echo "== a given plan's prediction, on the machines of its cluster"
"$trireme" plan job.textproto --plan first.textproto --out predicted.textproto \
  > predicted.txt
expect_in predicted.txt "samples/s"
expect_in predicted.textproto "step_s"
if "$trireme" plan job.textproto --plan first.textproto --why tp=2 \
  2> error.txt; then fail "why of a given plan"; fi
expect_in error.txt "--why: found with --plan"
"$trireme" launch job.textproto --plan first.textproto \
  --cluster cluster.textproto --dry_run > dry.txt
expect_in dry.txt "node0:2,node1:2"
if "$trireme" launch job.textproto --plan first.textproto \
  --cluster cluster.textproto --hosts node1:2,node0:2 --dry_run \
  2> error.txt; then fail "hosts in another order"; fi
expect_in error.txt "--hosts: found 'node1:2,node0:2', expected 'node0:2,node1:2'"
if "$trireme" launch job.textproto --plan first.textproto \
  --cluster cluster.textproto --only node0 --dry_run 2> error.txt; then
  fail "a plan for other ranks"
fi
expect_in error.txt "found 2 ranks, expected 4"

echo "== paths around a lost rank, and the job goes on without it"
echo 'grid { pp: 4 } skip { stages_per_microbatch: 3 }' > skip.textproto
"$trireme" plan job.textproto --cluster cluster.textproto \
  --route skip.textproto --without 2 --out routed.textproto > routed.txt
if "$trireme" plan job.textproto --route skip.textproto --charts a_ \
  2> error.txt; then fail "charts of a route"; fi
expect_in error.txt "--charts: found with --route"
expect_in routed.txt "memory of the fullest rank"
expect_in routed.textproto "paths {"
if grep -E 'ranks: \[[^]]*\b2\b' routed.textproto; then fail "rank 2 visited"; fi
"$trireme" launch job.textproto --ranks 4 --plan routed.textproto \
  --out routed_run > run.txt
[[ $(wc -l < routed_run/metrics.jsonl) == 2 ]] || fail "not two routed steps"

echo "== a plan for what was measured here"
"$trireme" profile --ranks 2 --out measured.textproto > profile.txt
expect_in profile.txt "GEMM"
"$trireme" plan job.textproto --cluster measured.textproto > plan.txt
expect_in plan.txt "CHOSEN"

echo "== a plan that offloads: made, explained, run"
"$trireme" cluster describe --device RTX4090 --nodes 1 --devices_per_node 1 \
  --out desk.textproto > cluster.txt
"$trireme" plan job.textproto --cluster desk.textproto --offload only \
  --charts offload_ --out offload.textproto > offload.txt
expect_in offload.txt "stay on a device; devices wait"
expect_in offload_timeline.svg "copy in"
"$trireme" plan job.textproto --cluster desk.textproto --why offload=true \
  > plan.txt
expect_in plan.txt "evaluated: DOMINATED(by"
"$trireme" train job.textproto --plan offload.textproto --out offload_run \
  --set sample.at_end=true --set sample.per_class=1 --set sample.steps=2 \
  > run.txt
expect_in run.txt "of rank 0's blocks"
[[ $(wc -l < offload_run/metrics.jsonl) == 2 ]] || fail "not two offloaded steps"
"$trireme" sample offload_run --out whole.png > sample.txt
cmp offload_run/samples/step_00000002.png whole.png ||
  fail "an offloaded model draws something else than a whole one"

echo "== mistakes"
if "$trireme" plan job.textproto --cluster none.textproto 2> error.txt; then
  fail "no cluster"
fi
expect_in error.txt "--cluster: found no none.textproto"
if "$trireme" plan job.textproto --cluster cluster.textproto \
  --why tp=x > /dev/null 2> error.txt; then fail "tp=x"; fi
expect_in error.txt "tp=x"
if "$trireme" plan job.textproto --cluster cluster.textproto \
  --route skip.textproto --without 0 2> error.txt; then fail "rank 0 lost"; fi
expect_in error.txt "rank 0 of the first stage"
if "$trireme" plan job.textproto --cluster cluster.textproto \
  --route skip.textproto --without 2,3 2> error.txt; then fail "no path"; fi
expect_in error.txt "found 2 stages that keep a rank, expected at least the 3"
if "$trireme" cluster describe --device A99 2> error.txt; then fail "A99"; fi
expect_in error.txt "A99"
sed -i 's/count: 2/count: 0/' cluster.textproto
if "$trireme" plan job.textproto --cluster cluster.textproto \
  2> error.txt; then fail "no devices"; fi
expect_in error.txt "cluster.textproto:"
expect_in error.txt "count"
echo "all as expected"
