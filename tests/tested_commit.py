"""Of which sources figures are that are collected over many calls."""

import os
import subprocess


def tested_commit():
    """The commit that is checked out, with a + where files differ from it; what
    is run was built of it, if whoever calls has built it since."""
    def git(*arguments):
        return subprocess.run(
            ["git", "-C", os.path.dirname(os.path.realpath(__file__)),
             *arguments], check=True, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL).stdout.strip()
    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
