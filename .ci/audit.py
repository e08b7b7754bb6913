"""Are there known vulnerabilities in the packages that are installed, or secrets among the files that git keeps?"""

import json
import subprocess
import sys
from pathlib import Path

PATIENCE = 120  # seconds that the index may take
BIN = Path(sys.executable).parent
CHECKSUMS = "-ubyte|git_commit"  # in lines of published checksums and of commits, which look like secrets
PAGES = ("docs/report/", "docs/play.html")  # written by this project, with pictures and weights in them


def vulnerabilities() -> bool:
    """Ask the package index; returns whether it names any."""
    command = [BIN / "pip-audit", "--skip-editable", "--progress-spinner", "off", "--format", "json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        packages = json.loads(done.stdout)["dependencies"]
    except (OSError, subprocess.TimeoutExpired, json.JSONDecodeError) as error:
        print(f"pip-audit is skipped: no answer from the package index ({type(error).__name__})")
        return False
    answered = [package for package in packages if "vulns" in package]
    found = [f"{package['name']} {package['version']}: {one['id']}" for package in answered for one in package["vulns"]]
    if answered:
        print(f"pip-audit: {len(answered)} of {len(packages)} packages are known to the index, {len(found)} findings")
    else:
        print(f"pip-audit is skipped: the index knows none of the {len(packages)} packages")
    print(*found, sep="\n", end="\n" * bool(found))
    return bool(found)


def secrets() -> bool:
    """Look through the files that git keeps; returns whether any holds what looks like a secret."""
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True)
    if listed.returncode:
        print("detect-secrets is skipped: this is no git checkout")
        return False
    names = [name for name in listed.stdout.split("\0") if name and not name.startswith(PAGES)]
    command = [BIN / "detect-secrets-hook", "--no-verify", f"--exclude-lines={CHECKSUMS}", *names]
    done = subprocess.run(command, capture_output=True, text=True)
    print(done.stdout + done.stderr if done.returncode else f"detect-secrets: nothing in {len(names)} files")
    return done.returncode != 0


if __name__ == "__main__":
    found = [vulnerabilities(), secrets()]
    raise SystemExit(any(found))
