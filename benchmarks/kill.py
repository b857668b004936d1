"""Kill training and `run-all` at random moments, start them again, and compare the end with a run that nobody disturbed.

    python benchmarks/kill.py [--training 20] [--run-all 10] [--seed 0]      how many times to kill each

Prints how often it killed and whether every end was the same, to the last bit; the exit status is 1 if one was not.
"""

import argparse
import hashlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
EPOCHS = 8


def train(folder):
    """What is killed: a CNN with dropout on made-up images. Writes end.json: a digest of its weights, and its history."""
    import torch

    from utils import data, models
    from utils.train import fit, sgd_one_cycle

    torch.set_num_threads(1)
    torch.manual_seed(0)
    train_set, val_set = data.synthetic("cifar10", train=1_000, test=10).train.hold_out(200, seed=0)
    model = models.CNN(10, batch_norm="after", dropout=0.5)
    loader = data.BatchLoader(train_set, 64, data.Augment(), shuffle=True, drop_last=True)
    optimizer, scheduler = sgd_one_cycle(model, lr=0.05, steps=EPOCHS * len(loader))
    history = fit(
        model, loader, data.BatchLoader(val_set, 200), epochs=EPOCHS, optimizer=optimizer, scheduler=scheduler, checkpoint=folder / "run.pt"
    )
    weights = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())).hexdigest()
    numbers = {name: series for name, series in vars(history).items() if name != "seconds"}
    (folder / "end.json").write_text(json.dumps({"weights": weights, "history": numbers, "next draw": torch.rand(1).item()}))


def training_end(folder):
    return json.loads((folder / "end.json").read_text())


def run_all_end(folder):
    """All results of notebook 02 without the times; `folder` is the copy of the project that was run."""
    found = {}
    for file in sorted((folder / "figures" / "02_residual_block").rglob("*.json")):
        record = json.loads(file.read_text())
        record.get("history", {}).pop("seconds", None)
        if file.name == "run.json":  # its digests and seconds differ with the times in the results
            record = sorted(record["files"])
        found[file.name] = record
    return found


def torment(name, command, folder, end, kills, rng, clear):
    """Run the command undisturbed, then kill it `kills` times, starting it again each time; returns whether all ends were the same."""
    quiet = {"cwd": folder if (folder / "utils").exists() else ROOT, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    start = time.monotonic()
    subprocess.run(command, check=True, **quiet)
    usual, reference, killed, ends, same = time.monotonic() - start, end(folder), 0, 0, True
    clear()
    while killed < kills:
        process = subprocess.Popen(command, **quiet)
        try:
            process.wait(rng.uniform(0.1, 1.1) * usual)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
            continue
        ends += 1
        same &= process.returncode == 0 and end(folder) == reference
        clear()
    subprocess.run(command, check=True, **quiet)
    same &= end(folder) == reference
    print(
        f"{name}: killed {killed} times, {ends + 1} runs came to their end, {'all' if same else 'NOT all'} like the undisturbed one",
        flush=True,
    )
    return same


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--training", type=int, default=20)
    parser.add_argument("--run-all", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    rng, same = random.Random(options.seed), True
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "training")
        folder.mkdir()
        if options.training:

            def clear():
                for file in folder.iterdir():
                    file.unlink()

            code = f"import sys; sys.path[:0] = {[str(ROOT), str(HERE)]}; import kill; kill.train(kill.Path({str(folder)!r}))"
            same &= torment("training", [sys.executable, "-c", code], folder, training_end, options.training, rng, clear)
        if options.run_all:
            copy = Path(temporary, "project")
            for part in ("utils", "runner", "notebooks"):
                shutil.copytree(ROOT / part, copy / part)
            command = [sys.executable, "-m", "runner.run_all", "--only", "02", "--budget", "smoke", "--data", "synthetic"]

            def forget():
                shutil.rmtree(copy / "figures", ignore_errors=True)

            same &= torment("run-all", command, copy, run_all_end, options.run_all, rng, forget)
    return int(not same)


if __name__ == "__main__":
    sys.exit(main())
