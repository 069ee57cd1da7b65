"""Under which conditions docs_test.py runs the commands of the documentation:
what lies in a reader's folder before a page, what is told to take less time,
and what is not run at all, each with its reason. Entries that match no command
fail the test.
"""

# One after the other in one folder: later ones use what earlier ones make.
# The pages that are not here have folders of their own.
GUIDES = ["getting_started.md", "launching.md", "resuming.md", "planning.md",
          "weights.md", "one_gpu.md", "shapes.md"]

# A model that diffusers has a class for.
SMALL_JOB = """
model { dit { hidden: 32 layers: 2 heads: 2 patch: 7
              conditioning: PER_BLOCK positions: SINCOS qk_norm: false } }
data { idx { folder: "/usr/share/datasets/fashion-mnist" } resolution: 28 }
global_batch: 8
steps: 4
sample { at_end: false per_class: 1 steps: 4 }
"""

PICTURES = """
python3 - <<'PYTHON'
import os
from pictures import png
for name in ("bright", "dark"):
    os.makedirs(f"pictures/{name}")
    for k in range(2):
        with open(f"pictures/{name}/{k}.png", "wb") as file:
            file.write(png(100 + k, side=16))
        with open(f"pictures/{name}/{k}.txt", "w") as file:
            file.write(f"{name} {k}")
PYTHON
"""

# What forward reads for a DiT of Fashion-MNIST.
INPUTS = """
python3 - <<'PYTHON'
from weights_files import write
write("in.safetensors", {"hidden_states": ([1, 1, 28, 28], [0.5] * 784),
                         "timestep": ([1], [500]), "class_labels": ([1], [3])})
PYTHON
"""

# Commands that make what a page takes for granted.
BEFORE = {
    "README.md": f"""
cat > job.textproto <<'JOB'
name: "NAME"
{SMALL_JOB}
JOB
cat > moe.textproto <<'JOB'
model {{ dit {{ hidden: 32 layers: 1 heads: 2 patch: 7
              moe {{ experts: 2 expert_hidden: 16 }} }} }}
data {{ idx {{ folder: "/usr/share/datasets/fashion-mnist" }} resolution: 28 }}
global_batch: 8
steps: 1
JOB
echo 'grid {{ dp: 2 ep: 2 }}' > experts.textproto
python3 examples/boxy_furniture.py meshes 1
cp ../guides/here.textproto cluster.textproto
trireme launch ../guides/tuned.textproto --ranks 1 --out runs/TUNED --steps 1 \
  --set init.weights=../guides/own_weights
{PICTURES}{INPUTS}""",
    "latents.md": PICTURES + """
python3 - <<'PYTHON'
import os
from weights_files import write_autoencoder
write_autoencoder(os.environ["AUTOENCODER"], "sd")
os.rename("sd", "VAE")
PYTHON
python3 examples/boxy_furniture.py boxes 1
""",
    "one_gpu.md": PICTURES,
    "shapes.md": """
python3 examples/boxy_furniture.py boxes 2
cat > vae.textproto <<'JOB'
model { shape_vae { latents: 8 channels: 4 encoder_hidden: 16 decoder_hidden: 16
                    encoder_layers: 1 decoder_layers: 1 heads: 2
                    points: 64 queries: 64 } }
data { shapes { path: "furniture_cache" } }
global_batch: 2
steps: 1
JOB
cat > flow.textproto <<'JOB'
model { triposg { hidden: 16 layers: 3 heads: 2 } }
data { latents { path: "latents" } }
global_batch: 2
steps: 1
sample { at_end: false steps: 2 per_class: 1 }
JOB
""",
    "weights.md": INPUTS,
}

# Texts of a page's commands, what stands in their place, and why.
BRIEF = "two cores have seconds, not minutes"
PACKAGE = "Debian's meshes are in a package that tests do without"
INSTEAD = {
    "README.md": [
        ("--ranks 4", "--ranks 2", BRIEF),
        ("--ranks 8", "--ranks 2", BRIEF),
    ],
    "latents.md": [
        ("--resolution 512", "--resolution 8", BRIEF),
        ("--resolution 1024", "--resolution 8", BRIEF),
        ("mpirun -n 4", "mpirun --allow-run-as-root --oversubscribe -n 4",
         "two cores, and CI is root"),
        ("tools/interop/encode_text.py sd3 shards encoded --pipeline PIPELINE",
         "cp -r shards encoded", "the encoders need PyTorch, and "
         "tools/interop/encode_text_test.py runs them"),
        ("/usr/share/sweethome3d/furniture", "boxes", PACKAGE),
        ("--views 8", "--views 2", BRIEF),
        ("--view_resolution 256", "--view_resolution 16", BRIEF),
    ],
    "moe.md": [
        ("trireme train examples/hidream_fashion_mnist.textproto",
         "trireme train examples/hidream_fashion_mnist.textproto --steps 2 "
         "--set global_batch=8 --set validation.samples=8 "
         "--set sample.at_end=false --set sample.per_class=1 "
         "--set sample.steps=2", BRIEF),
        ("--evaluate 500", "--evaluate 8", BRIEF),
    ],
    "shapes.md": [
        ("/usr/share/sweethome3d/furniture", "boxes", PACKAGE),
        ("trireme launch examples/sparse_",
         "trireme launch --steps 1 --set global_batch=2 --set data.held_out=1 "
         "--set sample.at_end=false --set sample.steps=2 "
         "--set sample.per_class=1 examples/sparse_", BRIEF),
        ("--shell_cells 64", "--shell_cells 36", BRIEF),
    ],
}

# Beginnings of commands that are not run, and why. Those of the program are
# parsed all the same.
BUILDS = "builds programs, or runs tests of its own"
GPU = "wants a GPU of NVIDIA"
FLUX = ("wants FLUX.1's published weights; adapter_test does this with a tiny "
        "network of its class")
HIDREAM = ("takes a minute, or wants latents; examples_test rehearses this plan "
           "on a made-up shard")
FIGURES = "takes hours: how the page's figures were made"
ELSEWHERE = {
    "README.md": {
        "./dev demo": BUILDS,
        "./dev test": BUILDS,
        "trireme watch": "wants a run that goes on; life_test watches one",
        "trireme profile": "planning.md's is run, and its file taken",
    },
    "2026-11-30-job-life.md": {
        "python3 tools/bench/job_life.py": FIGURES,
        "B=bazel-bin/tests/chaos": FIGURES,
        "PATH=": FIGURES,
        "tools/dev/bazel.sh build --config=fuzz": BUILDS,
        "python3 -B tests/fuzz/campaign.py": FIGURES,
    },
    "gpu.md": {
        "trireme train examples/fashion_mnist.textproto --device cuda": GPU,
        "tar -xf trireme-gpu.tar.xz": GPU,
        "trireme/": GPU,
        "./dev emulated": BUILDS,
        "tools/dev/bazel.sh test": BUILDS,
        "TRIREME_EMULATED_": BUILDS,
        "./dev mutate": BUILDS,
    },
    "moe.md": {
        "trireme plan examples/hidream_i1.textproto": HIDREAM,
        "trireme train examples/hidream_i1.textproto": HIDREAM,
    },
    "one_gpu.md": {
        "tools/interop/encode_text.py flux": FLUX,
        "trireme data --latents FLUX/vae": FLUX,
        "trireme launch flux.textproto": FLUX,
        "trireme convert runs/flux": FLUX,
    },
    "shapes.md": {
        "trireme sample flow": "a field that is hardly trained has surfaces "
                               "everywhere, for ten seconds; shape_vae_test "
                               "draws from a trained one",
    },
}
