#!/bin/bash
# Before and after a run: the check of its hosts, what batch systems are handed,
# files that travel with the launch, the report. Usage: launch_test.sh
# PATH_TO_TRIREME
source "$(dirname "$0")/testing.sh" "$1"

"$trireme" data /usr/share/datasets/fashion-mnist "$work/shards" --idx \
  --split test > data.txt
cat > job.textproto <<JOB
model { dit { hidden: 32 layers: 2 heads: 4 patch: 7 } }
data { webdataset { paths: "$work/shards" } resolution: 28 channels: 1 }
global_batch: 8
steps: 12
sample { per_class: 1 steps: 2 }
precision: FP32
JOB
echo 'grid { dp: 2 }' > plan.textproto

echo "== the check: what is the same, what is not there"
"$trireme" launch job.textproto --ranks 2 --check > check.txt
expect_in check.txt "hosts   1 with 2 ranks"
expect_in check.txt "data    10000 samples"
expect_in check.txt "sum     of 1 MiB over 2 ranks"
expect_in check.txt "ready"
[[ ! -e runs ]] || fail "the check began a run"
if "$trireme" launch job.textproto --ranks 2 --check \
  --set "data.webdataset.paths=$work/none" > check.txt 2>&1; then
  fail "ready without data: $(cat check.txt)"
fi
expect_in check.txt "host $(hostname): data: "

# A plan counts on the devices of its cluster.
"$trireme" cluster describe --device H100 --devices_per_node 2 \
  --out cluster.textproto > described.txt
sed -i "s/\"node0\"/\"$(hostname)\"/" cluster.textproto
if "$trireme" launch job.textproto --cluster cluster.textproto --check \
  --device cpu > check.txt 2>&1; then
  fail "ready on other devices: $(cat check.txt)"
fi
expect_in check.txt \
  "host $(hostname): cluster.nodes[0].device: found cpu, expected H100"
sed -i "s/\"H100\"/\"cpu here\"/; s/memory_bytes: .*/memory_bytes: 900000000/
  s/reserved_bytes: .*/reserved_bytes: 0/" cluster.textproto
"$trireme" launch job.textproto --cluster cluster.textproto --check \
  --device cpu > check.txt 2>&1 || fail "$(cat check.txt)"
expect_in check.txt "devices 1 host with 2 x cpu, "
expect_in check.txt "ready"

# Of two hosts, each with a picture of its own: its samples are compared as well.
python3 - <<'PYTHON'
import os
from pictures import png
for rank in (0, 1):
    os.makedirs(f"seen/{rank}/a")
    open(f"seen/{rank}/a/{rank}.png", "wb").write(png(100, side=28))
PYTHON
if mpirun --allow-run-as-root --oversubscribe -np 2 bash -c '"$0" train \
  job.textproto --check --set "data={image_folder{path:\"seen/\
$OMPI_COMM_WORLD_RANK\"} resolution: 28}"' "$trireme" > check.txt 2>&1; then
  fail "ready with unlike pictures: $(cat check.txt)"
fi
expect_in check.txt "data: as many samples as on $(hostname), but others"

echo "== a model that names classes, of which only the ranks know how many"
"$trireme" launch job.textproto --ranks 2 --out named --set steps=1 \
  --set 'model={swin {hidden: 16 patch: 2 mlp_ratio: 2
    stages {blocks: 2 heads: 2} stages {blocks: 2 heads: 4}}}' > named.txt
[[ -e named/checkpoints/step_00000001 ]] || fail "$(cat named.txt)"

echo "== hosts that nobody reaches are named, in seconds"
mkdir agent
printf '#!/bin/sh\necho "no route to $1"\nexit 255\n' > agent/ssh
chmod +x agent/ssh
if OMPI_MCA_plm_rsh_agent=$work/agent/ssh "$trireme" launch job.textproto \
  --hosts far.invalid:1,further.invalid:1 --check > check.txt 2>&1; then
  fail "reached: $(cat check.txt)"
fi
expect_in check.txt "host far.invalid: no process can be started there"
expect_in check.txt "host further.invalid: no process can be started there"

echo "== hosts that have the data elsewhere, and the run's folder"
# Both are this machine, by two names.
printf '#!/bin/sh\nshift\nexec /bin/sh -c "$*"\n' > agent/here
chmod +x agent/here
export OMPI_MCA_plm_rsh_agent=$work/agent/here
mkdir disk
cp -r shards disk/first
mv shards disk/second
mkdir -p disk/runs runs
cat > hosts <<HOSTS
127.0.0.1 slots=1 paths=$work/shards:$work/disk/first
127.0.0.2 slots=1 paths=$work/shards:$work/disk/second,$work/runs:$work/disk/runs
HOSTS
if "$trireme" launch job.textproto --hosts 127.0.0.1:1,127.0.0.2:1 --check \
  > check.txt 2>&1; then
  fail "ready without data: $(cat check.txt)"
fi
expect_in check.txt "data: data.webdataset.paths: $work/shards"
"$trireme" launch job.textproto --hostfile hosts --check > check.txt 2>&1 ||
  fail "$(cat check.txt)"
expect_in check.txt "$work/shards:$work/disk/first"
expect_in check.txt "ready"
# A folder each is none.
expect_error "rank 1: --out: found another folder at $work/disk/runs/apart" \
  "$trireme" launch job.textproto --hostfile hosts --out "$work/runs/apart" \
  --restarts 0
[[ ! -e runs/apart/metrics.jsonl && ! -e runs/apart/checkpoints ]] ||
  fail "a run was begun: $(ls runs/apart)"
rm -r disk/runs
ln -s "$work/runs" disk/runs
"$trireme" launch job.textproto --hostfile hosts --out "$work/runs/placed" \
  > placed.txt 2>&1 || fail "$(cat placed.txt)"
[[ -e runs/placed/checkpoints/step_00000012 ]] || fail "$(cat placed.txt)"
expect_in runs/placed/job.textproto "\"$work/shards\""
# So may a spare: it is there in the place of a host that is not.
sed -n "s/.*paths=/127.0.0.4 paths=/; 2p" hosts > spares
cat > agent/partly <<'SCRIPT'
#!/bin/sh
[ "$1" != 127.0.0.3 ] || { echo "no route to $1"; exit 255; }
exec "$(dirname "$0")/here" "$@"
SCRIPT
chmod +x agent/partly
sed -i '2s/.*/127.0.0.3 slots=1/' hosts
OMPI_MCA_plm_rsh_agent=$work/agent/partly "$trireme" launch job.textproto \
  --hostfile hosts --sparefile spares --listen 127.0.0.1:0 --steps 2 \
  --out "$work/runs/spared" > spared.txt 2>&1 || fail "$(cat spared.txt)"
expect_in spared.txt "goes on with 127.0.0.1:1,127.0.0.4:1"
[[ -e runs/spared/checkpoints/step_00000002 ]] || fail "$(cat spared.txt)"
unset OMPI_MCA_plm_rsh_agent
mv disk/second shards

echo "== job and plan travel with the launch"
mkdir bin
cat > bin/mpirun <<'SCRIPT'
#!/bin/bash
# The hosts' files are gone when ranks start.
rm -f job.textproto plan.textproto
exec /usr/bin/mpirun "$@"
SCRIPT
chmod +x bin/mpirun
cp job.textproto plan.textproto bin
PATH=$work/bin:$PATH "$trireme" launch job.textproto --plan plan.textproto \
  --out runs/far > far.txt || fail "$(cat far.txt)"
[[ $(wc -l < runs/far/metrics.jsonl) == 12 ]] || fail "$(cat far.txt)"
mv bin/job.textproto bin/plan.textproto .

echo "== a plan that somebody has changed is not replaced, before anything is measured"
echo 'grid { dp: 2 } # mine' > runs/planned.plan.textproto
expect_error "runs/planned.plan.textproto with changes of someone's" "$trireme" \
  launch job.textproto --out runs/planned --device_memory 1GiB
expect_in runs/planned.plan.textproto mine

echo "== Slurm: a script, and a launch inside of its allocation"
"$trireme" launch job.textproto --slurm --nodes 2 --ranks 4 \
  --sbatch=--partition=gpu --dry_run > script.txt
expect_in script.txt "#SBATCH --ntasks-per-node=2"
expect_in script.txt "#SBATCH --partition=gpu"
cat > bin/sbatch <<'SCRIPT'
#!/bin/bash
cat > submitted
SLURM_JOB_ID=7 SLURM_NTASKS=2 SLURM_JOB_NUM_NODES=1 bash submitted
SCRIPT
cat > bin/srun <<'SCRIPT'
#!/bin/bash
[[ " $* " == *" --mpi=pmix "* && " $* " == *" --ntasks=2 "* ]] || exit 9
while [[ $1 == --* ]]; do shift; done
unset SLURM_JOB_ID SLURM_NTASKS SLURM_JOB_NUM_NODES
exec /usr/bin/mpirun --allow-run-as-root --oversubscribe -np 2 "$@"
SCRIPT
chmod +x bin/sbatch bin/srun
rm bin/mpirun
PATH=$work/bin:$PATH "$trireme" launch job.textproto --slurm --ranks 2 \
  --out runs/batch > batch.txt 2>&1 || fail "$(cat batch.txt)"
[[ $(wc -l < runs/batch/metrics.jsonl) == 12 ]] || fail "$(cat batch.txt)"
# Its own options go with it, and none is lost on the way.
"$trireme" launch job.textproto --slurm --ranks 2 --restarts 7 --tls --check \
  --metrics 127.0.0.1:0 --dry_run > script.txt
expect_in script.txt "--restarts=7 --metrics=127.0.0.1:0 --tls --check"
expect_error "--hosts: found with --slurm" "$trireme" launch job.textproto \
  --slurm --hosts a:1
# What would be ignored, or be refused when the job has waited for its turn.
expect_error "--nodes: found without --slurm or --emit" "$trireme" launch \
  job.textproto --ranks 2 --nodes 2 --dry_run
expect_error "--sbatch: found without --slurm" "$trireme" launch \
  job.textproto --emit kubernetes --sbatch=--partition=gpu
expect_error "--emit: found with --slurm" "$trireme" launch job.textproto \
  --slurm --emit kubernetes
expect_error "--allow: found without --resume" "$trireme" launch \
  job.textproto --slurm --ranks 2 --allow seed --dry_run
expect_error "--restarts: found -1" "$trireme" launch job.textproto --slurm \
  --ranks 2 --restarts=-1 --dry_run
# A job that is queued again is not led back to where its first start began.
again=(launch job.textproto --out runs/batch --resume
  --checkpoint step_00000012 --steps 14)
PATH=$work/bin:$PATH SLURM_JOB_ID=7 SLURM_NTASKS=2 "$trireme" "${again[@]}" \
  > batch.txt 2>&1 || fail "$(cat batch.txt)"
[[ -e runs/batch/checkpoints/step_00000014 ]] || fail "$(cat batch.txt)"
PATH=$work/bin:$PATH SLURM_JOB_ID=7 SLURM_NTASKS=2 SLURM_RESTART_COUNT=1 \
  "$trireme" "${again[@]}" > batch.txt 2>&1 || fail "$(cat batch.txt)"
expect_in batch.txt "nothing to do: all 14 steps are done"
expect_error "found 2 tasks of srun that do not know of one another" \
  env SLURM_STEP_NUM_TASKS=2 "$trireme" train job.textproto
expect_error "found 2 tasks of srun" \
  env SLURM_STEP_NUM_TASKS=2 "$trireme" sample runs/batch --out drawn.png
expect_error "sbatch failed" env PATH=/usr/bin:/bin "$trireme" launch \
  job.textproto --slurm --ranks 2

echo "== what contains a wait outlasts it"
expect_error "--lost_after_s: found 2 s, expected more than the 3 s of" \
  "$trireme" launch job.textproto --ranks 1 --lost_after_s 2

echo "== Kubernetes"
"$trireme" launch job.textproto --emit kubernetes --image lab/trireme --nodes 2 \
  --ranks 4 > job.yaml
python3 - <<'PYTHON' || fail "$(cat job.yaml)"
try:
    import yaml
except ImportError:
    raise SystemExit(0)
job = yaml.safe_load(open("job.yaml"))
assert job["kind"] == "MPIJob", job
replicas = job["spec"]["mpiReplicaSpecs"]
assert replicas["Worker"]["replicas"] == 2
command = replicas["Launcher"]["template"]["spec"]["containers"][0]["command"]
assert command[1:3] == ["launch", "job.textproto"], command
PYTHON
expect_in job.yaml "replicas: 2"
expect_error "--checkpoint: found with --emit" "$trireme" launch \
  job.textproto --emit kubernetes --resume --checkpoint step_00000012
expect_error "--emit: found 'cloud', expected kubernetes" "$trireme" launch \
  job.textproto --emit cloud

echo "== the report: one page that needs nothing beside it"
"$trireme" report runs/far > report.txt
expect_in report.txt "runs/far/report.html"
"$trireme" report runs/far > report.txt
echo mine > notes.html
expect_error "notes.html: found a file that is no report" "$trireme" report \
  runs/far --out notes.html
expect_in notes.html mine
python3 - <<'PYTHON' || fail "$(head -c 2000 runs/far/report.html)"
import html.parser


class Page(html.parser.HTMLParser):
    VOID = {"meta", "img", "line", "rect", "polyline"}

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        for name, value in attributes:
            assert name not in ("src", "href") or value.startswith("data:")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag


page = Page()
page.feed(open("runs/far/report.html", encoding="utf-8").read())
assert page.open == [], page.open
assert page.seen.count("polyline") >= 4 and "img" in page.seen, page.seen
PYTHON
