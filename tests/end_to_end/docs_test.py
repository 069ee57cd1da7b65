"""What the documentation says that the program does not have.

  docs_test.py TRIREME EXAMPLE PAGE...

Every `trireme COMMAND ...` in code of the pages has to be one of the program's
commands, with options that its --help names; every message in the first column
of troubleshooting.md, between what differs (…), a text of the program's. What
stands in ```sh blocks is run, one page after the other in one folder, in which
`examples` is the folder of EXAMPLE; commands that want other machines are told
--dry_run.
"""

import os
import re
import subprocess
import sys
import tempfile

TRIREME = os.path.abspath(sys.argv[1])
EXAMPLES = os.path.dirname(os.path.abspath(sys.argv[2]))
PAGES = sys.argv[3:]
# Blocks between fences, and code within a line.
BLOCK = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`]+)`")
COMMAND = re.compile(r"^(?:mpirun [^\n]*?)?trireme ([a-z]+)\b([^#|;&\n]*)",
                     re.MULTILINE)
# Of a guide, to be run as it stands.
SHELL = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Later ones use what earlier ones make.
GUIDES = ["getting_started.md", "launching.md", "resuming.md", "planning.md",
          "weights.md", "one_gpu.md", "shapes.md"]
OPTION = re.compile(r"(?:^|\s)--([a-z][a-z0-9_]*)")


def commands(text):
    """Pairs of a command and what follows it."""
    blocks = BLOCK.findall(text)
    rest = BLOCK.sub("", text)
    # A line that ends in a backslash goes on; so does code in the text.
    code = [block.replace("\\\n", " ") for block in blocks]
    code += [inline.replace("\n", " ") for inline in INLINE.findall(rest)]
    return [match.groups() for part in code for match in COMMAND.finditer(part)]


def options_of(command, known={}):  # pylint: disable=dangerous-default-value
    """What its --help names; None of no command."""
    if command not in known:
        done = subprocess.run([TRIREME, command, "--help"], check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        known[command] = (set(OPTION.findall(done.stdout.decode()))
                          if done.returncode == 0 else None)
    return known[command]


def run_guides(pages):
    """What goes wrong in the guides' shell blocks."""
    texts = {os.path.basename(page): page for page in pages}
    with tempfile.TemporaryDirectory(prefix="trireme.") as work:
        os.makedirs(f"{work}/bin")
        os.symlink(TRIREME, f"{work}/bin/trireme")
        os.symlink(EXAMPLES, f"{work}/examples")
        environment = dict(os.environ, PATH=f"{work}/bin:{os.environ['PATH']}",
                           TMPDIR=work)
        for name in GUIDES:
            with open(texts[name], encoding="utf-8") as file:
                blocks = SHELL.findall(file.read())
            if not blocks:
                return [f"{name}: no shell block"]
            script = "\n".join(blocks)
            script = "\n".join(
                f"{line.replace('--check', '').split('#')[0]} --dry_run"
                if re.search(r"--(hosts|slurm)\b", line) else line
                for line in script.split("\n"))
            # Each page is a reader's own beginning.
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", f"rm -rf runs\n{script}"],
                cwd=work, env=environment, check=False, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT)
            if done.returncode != 0:
                return [f"{name}: status {done.returncode}:\n"
                        + done.stdout.decode()[-4000:]]
    return []


def messages(text):
    """In the first columns of tables."""
    return re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)


def main():
    wrong, count = [], 0
    with open(TRIREME, "rb") as file:
        program = file.read()
    for page in PAGES:
        with open(page, encoding="utf-8") as file:
            text = file.read()
        if os.path.basename(page) == "troubleshooting.md":
            wrong += [f"{page}: '{message}': '{part}' is no text of the program"
                      for message in messages(text)
                      for part in message.split("…")
                      if part.encode() not in program]
        for command, rest in commands(text):
            count += 1
            known = options_of(command)
            if known is None:
                wrong.append(f"{page}: trireme {command}: no such command")
                continue
            wrong += [f"{page}: trireme {command} --{option}: no such option"
                      for option in OPTION.findall(rest)
                      if option not in known and option != "help"]
    wrong += run_guides(PAGES)
    print("\n".join(sorted(set(wrong))))
    print(f"{count} commands on {len(PAGES)} pages")
    return 1 if wrong or count < 40 else 0


if __name__ == "__main__":
    sys.exit(main())
