"""The benchmark of several processes and streamed pictures measures what it says; its figures are not looked at here."""

import json
import mmap
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import beyond  # noqa: E402


@pytest.mark.slow
def test_speeds_are_summed_up_and_written_down(tmp_path, monkeypatch, capsys):
    found = {"one_thread": [60.0, 61], "one_process": [100.0, 90], "processes": [95.0, 96], "without_exchange": [100.0, 100]}
    monkeypatch.setattr(beyond.distributed, "torchrun", lambda *command: iter(["a line before", json.dumps(found)]))
    memory = {"peak_megabytes": [500, 510], "decoded_megabytes": [50, 200]}
    monkeypatch.setattr(beyond, "memory", lambda folder: memory)
    monkeypatch.setattr(beyond, "resnet50", lambda folder: {"images_per_second": 3.0, "read_per_second": 200.0})
    monkeypatch.setattr(beyond, "RESULTS", tmp_path)
    beyond.main([])
    record = json.loads((tmp_path / f"beyond_{beyond.DEVICE.type}.json").read_text())
    assert record["speed"]["images_per_second"]["one_process"] == 95 and record["speed"]["factor"] == round(95.5 / 95, 3)
    assert record["speed"]["exchange"] == 0.045 and record["speed"]["exchange_range"] == [0.04, 0.05]
    assert record["memory"] == memory and {"device", "torch", "python", "rounds"} <= set(record)
    assert "the exchange takes 4% of the time" in capsys.readouterr().out


@pytest.mark.slow
def test_all_pictures_are_read(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    beyond.make_folder(tmp_path, 12, 20)
    beyond.measure_memory(tmp_path)
    found = json.loads(capsys.readouterr().out)
    assert found["read"] == 12 and found["bytes"] > 50e6


def test_what_is_held_is_counted():
    before = beyond.held()
    with mmap.mmap(-1, 100_000_000) as fresh:  # a tensor might get memory that an earlier one has left
        fresh.write(bytes(100_000_000))
        assert 90e6 < beyond.held() - before < 130e6
