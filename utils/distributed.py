"""Several processes that train one network together; notebook 11 derives what happens. With one process, nothing here does anything.

    torchrun --nproc-per-node=2 --local-addr=127.0.0.1 -m utils.train --network resnet20 --data cifar10

torchrun starts the processes and gives each its number, the *rank*, and the address where all meet. Each has the whole network and takes
its part of every batch (`BatchLoader(…, share=share())`). In the backward pass, DistributedDataParallel replaces every gradient by its
mean over all processes, so that all make the same step and stay equal. `train.epoch` and `train.fit` are the same as for one process.
"""

import datetime
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from .files import digest


def processes():
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank():
    """The number of this process, from 0."""
    return dist.get_rank() if processes() > 1 else 0


def share():
    """(rank, processes): which part of each batch this process takes."""
    return rank(), processes()


# ---- beginning and end ----------------------------------------------------------------------------------------------


def start(device):
    """Meet the other processes that torchrun has started; returns this one's torch.device. Without torchrun, that is `device`.

    Of several GPUs, each process takes the one with its local rank. All processes but the first are silent from here on: what they print
    goes nowhere. Raises ValueError if there are more processes than GPUs.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or processes() > 1:
        return device
    if device.type == "cuda":
        local, found = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if int(os.environ["LOCAL_WORLD_SIZE"]) > found:
            raise ValueError(f"{os.environ['LOCAL_WORLD_SIZE']} processes, but {found} GPU{'s' * (found != 1)} here: one process a GPU")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    elif device.type != "cpu":
        raise ValueError(f"several processes train on CPUs or on CUDA GPUs, not on {device}")
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"  # NCCL for gradients on GPUs, gloo for all else
    where, number, count = next(dist.rendezvous("env://"))  # torchrun's list of addresses
    if os.environ.get("GROUP_WORLD_SIZE", "1") == "1":  # after a restart, the old addresses stand there still: use a new page
        where = dist.PrefixStore(f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", where)
    dist.init_process_group(backend, store=where, rank=number, world_size=count, timeout=datetime.timedelta(minutes=10))
    if rank() > 0:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 – open as long as the process lives
    return device


def end():
    """Part from the others, when all is done."""
    if processes() > 1:
        dist.barrier()  # so that gloo's threads have let go of all tensors: one that still has some when Python ends aborts the process
        dist.destroy_process_group()


def fail(error):
    """End this process because of an error. The first process that fails says why, in one line; the others are silent."""
    if _first_to_fail():
        who = f"process {os.environ['RANK']}: " if int(os.environ.get("WORLD_SIZE", 1)) > 1 else ""
        print(f"{who}{_in_words(error)}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(130 if isinstance(error, KeyboardInterrupt) else 1)  # at once: the usual way would wait for the other processes


def _first_to_fail():
    """Asked at the place where all processes have met; torchrun keeps it up, whichever process dies."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return True
    try:
        place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = dist.TCPStore(*place, is_master=False, timeout=datetime.timedelta(seconds=5))
        return store.add(f"failures of start {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", 1) == 1
    except (RuntimeError, OSError):  # torchrun is gone
        return False


LOST = ("closed by peer", "reset by peer", "Broken pipe", "Socket closed", "Read error", "remote process has exited", "NCCL")


def _in_words(error):
    text = " ".join(str(error).split())
    if isinstance(error, RuntimeError) and any(words in text for words in LOST):
        return f"the connection to another process is lost: it was killed, or its machine is gone ({text[:100]} …)"
    if isinstance(error, (ValueError, OSError, FloatingPointError, MemoryError, KeyboardInterrupt)) and text:
        return text
    place = error.__traceback__
    while place and place.tb_next:
        place = place.tb_next
    where = f" ({Path(place.tb_frame.f_code.co_filename).name}, line {place.tb_lineno})" if place else ""
    return f"{type(error).__name__}: {text}{where}"


# ---- the network ----------------------------------------------------------------------------------------------------


def wrap(model):
    """The model as all processes train it: from the first one's weights, its gradients averaged in each backward pass.

    From here on, each process draws other random numbers, for dropout.
    """
    from .train import precision  # here, because train itself needs this module

    if processes() == 1:
        return model
    memory_format = precision(next(model.parameters()).device).memory_format  # before DDP lays out its buffers for the gradients
    torch.manual_seed(torch.initial_seed() + rank())
    wrapped = nn.parallel.DistributedDataParallel(model.to(memory_format=memory_format))
    wrapped.broadcast_buffers = False  # not in each step: share_buffers does it once an epoch
    return wrapped


def unwrapped(model):
    """The network itself."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


def share_buffers(model):
    """Give all processes the first one's running statistics: each has those of the images that it saw itself."""
    if processes() > 1:
        for buffer in unwrapped(model).buffers():
            dist.broadcast(buffer, 0)


# ---- numbers --------------------------------------------------------------------------------------------------------


def add_up(numbers, least=False):
    """Replace a tensor by its sum over all processes, or by the least of each number."""
    if processes() > 1:
        dist.all_reduce(numbers, dist.ReduceOp.MIN if least else dist.ReduceOp.SUM)
    return numbers


def from_first(value):
    """What the first process has for `value`, in all of them."""
    box = [value]
    if processes() > 1:
        dist.broadcast_object_list(box, 0)
    return box[0]


def from_all(value):
    """What each process has for `value`, in all of them."""
    found = [value] * processes()
    if processes() > 1:
        dist.all_gather_object(found, value)
    return found


def agree(settings):
    """Raises ValueError, in every process, unless all have the same settings (a flat dict), code and version of PyTorch."""
    if processes() == 1:
        return
    files = sorted(Path(__file__).parent.glob("*.py"))
    own = settings | {"code in utils": digest(b"".join(file.read_bytes() for file in files)), "version of PyTorch": torch.__version__}
    first, *others = from_all(own)
    for number, other in enumerate(others, start=1):
        for key in {**first, **other}:
            if first.get(key) != other.get(key):
                raise ValueError(f"process {number} differs from process 0: {key} is {other.get(key)!r} there and {first.get(key)!r} here")


# ---- torchrun from a notebook ---------------------------------------------------------------------------------------


def torchrun(count, *command, max_restarts=0, **options):
    """Start `torchrun` with `count` processes on this machine, and yield its lines as they come; raises CalledProcessError if it fails.

    command: a program and its arguments, or "-m", a module and its arguments. options: of subprocess.Popen, such as env.
    What torchrun itself has to say when a process fails, some thirty lines, is left out. Whatever happens to the caller (an interrupt,
    an error, a loop that is left), no process stays.
    """
    meet = ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1", "--monitor-interval=0.1"]
    launch = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={count}", f"--max-restarts={max_restarts}", *meet]
    options = {"env": os.environ} | options
    own = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])}  # so that it finds utils
    options["env"] = {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // count)), **options["env"], **own}
    options["env"] |= {"TORCH_CPP_LOG_LEVEL": "ERROR", "KINETO_LOG_LEVEL": "99", "LOGLEVEL": "CRITICAL", "TQDM_DISABLE": "1"}
    whole = [*launch, *map(str, command)]
    with subprocess.Popen(
        whole, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True, **options
    ) as process:
        try:
            before, report = "", False
            for line in process.stdout:
                log = re.match(r"[EIW]\d{4} ", line)
                report = report or ("failed (exitcode" in before and line.startswith("Traceback"))  # all that follows is torchrun's
                if not (report or log):
                    yield line.rstrip("\n")
                before = line
            if process.wait():
                raise subprocess.CalledProcessError(process.returncode, f"torchrun {' '.join(map(str, command))}")
        finally:
            if process.poll() is None:
                _stop(process)


def _stop(process):
    """torchrun ends its processes when it is asked to end."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(40)  # torchrun itself waits half a minute for its processes, then kills them
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
