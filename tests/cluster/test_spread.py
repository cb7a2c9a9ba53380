"""What becomes of shards, whoever does them."""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager

import pytest
import torch

from amfast.cluster import Spread, plan_shards
from amfast.cluster.shards import ShardDone, ShardLost, TrialWritten
from amfast.cluster.spread import _together
from amfast.cluster.work import Order, do_shard
from amfast.errors import RunError, UsageError
from amfast.optimize.engine import Progress
from amfast.optimize.slots import Slots, united
from amfast.optimize.trials import Trial, plan_trials
from amfast.runs.directory import RunDirectory
from amfast.runs.session import Listener, execute, prepare
from tests.command import contents, listing

OPTIONS = {"classes": "0-2", "trials": 2, "steps": 6, "latents": 2, "steps_per_latents": 2}


@pytest.fixture(scope="module")
def job():
    return prepare(**OPTIONS, device="cpu")


@pytest.fixture(scope="module")
def usual(job, tmp_path_factory):
    return execute(job, tmp_path_factory.mktemp("usual")).directory.path


class Here:
    """Workers that do their shards in this process, but lose some of them first."""

    together, description = 2, "this process"

    def __init__(self, run, losses=()):
        self.run, self.losses, self.waiting = run, deque(losses), deque()
        self.started = []

    def start(self, shard):
        self.started.append(shard.name)
        self.waiting.append(shard)

    def events(self):
        shard, told = self.waiting.popleft(), []
        if self.losses and self.losses[0] in (shard.name, None):
            self.losses.popleft()
            return [(shard, ShardLost("the cat did it"))]
        do_shard(Order(self.run, shard, "cpu", every=0), told.append)
        return [(shard, event) for event in told]


def spread(losses=(), **options):
    made = []

    @contextmanager
    def workers(run, job):
        made.append(Here(run, losses))
        yield made[-1]

    return Spread(workers, **options), made


def test_shards_are_cut_alike_whoever_does_them():
    trials = plan_trials((3, 5), 3, 0)
    shards = plan_shards(trials, 4)
    assert [shard.name for shard in shards] == ["0003-00-0005-00", "0005-01-0005-02"]
    assert [trial for shard in shards for trial in shard.trials] == trials


@pytest.mark.parametrize(("size", "shards"), [(None, 2), (1, 6), (4, 2), (64, 1)])
def test_same_bytes_as_one_process(job, usual, tmp_path, size, shards):
    executor, made = spread(shard_trials=size)
    outcome = execute(job, tmp_path, executor=executor)
    assert len(made[0].started) == shards
    assert contents(outcome.directory.path) == contents(usual)
    assert listing(outcome.directory.path) == listing(usual)
    for key in ("classes", "trials", "failed"):
        assert outcome.summary[key] == RunDirectory.open(usual).summary()[key]


def test_a_lost_shard_is_done_again(job, usual, tmp_path):
    heard = []
    listener = Listener(on_note=heard.append)
    executor, made = spread(["0000-00-0001-00", "0001-01-0002-01", "0000-00-0001-00"])
    outcome = execute(job, tmp_path, executor=executor, listener=listener)
    assert contents(outcome.directory.path) == contents(usual)
    assert len(made[0].started) == 5
    again = "shard 0000-00-0001-00 is tried again: the cat did it"
    assert heard.count(again) == 2 and "2 shards for this process" in heard


def test_a_shard_that_always_fails_is_named_and_the_rest_is_kept(job, usual, tmp_path):
    executor, _ = spread(["0001-01-0002-01"] * 3)
    with pytest.raises(RunError, match=r"1 of 2 shards failed 3 times.*0001-01-0002-01: the cat"):
        execute(job, tmp_path, executor=executor)
    (run,) = tmp_path.iterdir()
    assert len(list(run.glob("trials/*"))) == 3
    executor, _ = spread()
    outcome = execute(job, run, resume=True, executor=executor)
    assert contents(outcome.directory.path) == contents(usual)


def test_what_was_finished_is_scored_and_not_done_again(job, usual, tmp_path):
    executor, _ = spread()
    first = execute(job, tmp_path, executor=executor)
    ages = {path: path.stat().st_mtime_ns for path in first.directory.path.glob("trials/*")}
    executor, _ = spread(shard_trials=1)
    again = execute(job, tmp_path, resume=True, executor=executor)
    assert again.summary == first.summary
    assert {path: path.stat().st_mtime_ns for path in ages} == ages


class Stop(Exception):
    pass


def stop_after(count):
    def hear(event):
        nonlocal count
        count -= 1
        if not count:
            raise Stop

    return hear


@pytest.mark.parametrize("sizes", [(2, 2), (2, 4), (64, 1)])
def test_a_shard_goes_on_where_another_process_stopped(job, usual, tmp_path, sizes):
    """Stopped between two resamples, by one cut into shards, and gone on with by another."""
    directory = RunDirectory.create(tmp_path, job.config, job.facts)
    first = plan_shards(plan_trials((0, 1, 2), 2, 0), sizes[0])[0]
    with pytest.raises(Stop):
        do_shard(Order(directory.path, first, "cpu", every=0), stop_after(5))
    steps = directory.stopped(first.name)[0].step.tolist()
    assert steps == [4] * len(first.trials)
    went_on, progress = [], []
    listener = Listener(on_going_on=went_on.extend, on_progress=progress.append)
    executor, _ = spread(shard_trials=sizes[1])
    outcome = execute(job, directory.path, resume=True, executor=executor, listener=listener)
    assert went_on == steps
    assert min(now.first for now in progress[:2]) > 4 or sizes != (2, 2)
    assert contents(outcome.directory.path) == contents(usual)
    assert listing(outcome.directory.path) == listing(usual)


def test_twice_is_harmless(job, usual, tmp_path):
    directory = RunDirectory.create(tmp_path, job.config, job.facts)
    (shard,) = plan_shards(plan_trials((0,), 2, 0), 2)
    order = Order(directory.path, shard, "cpu")
    told = [[], []]
    do_shard(order, told[0].append)
    do_shard(order, told[1].append)
    written = [[e.trial.index for e in part if isinstance(e, TrialWritten)] for part in told]
    assert written == [[0, 1], []]
    assert isinstance(told[0][-1], ShardDone) and told[0][-1] == told[1][-1]


def test_the_first_commit_stays(job, usual, tmp_path):
    directory = RunDirectory.create(tmp_path, job.config, job.facts)
    trial = Trial(0, 0, 0)
    result = RunDirectory.open(usual).finished([trial])[0][trial]
    directory.commit(result)
    (path,) = directory.path.glob("trials/*")
    inode = path.stat().st_ino
    directory.commit(result)
    assert path.stat().st_ino == inode
    assert [p.name for p in directory.path.joinpath("trials").iterdir()] == [path.name]


def test_a_file_system_without_links(job, usual, tmp_path, monkeypatch):
    def link(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", link)
    executor, _ = spread()
    assert contents(execute(job, tmp_path, executor=executor).directory.path) == contents(usual)


def test_damaged_trial_is_done_again(job, usual, tmp_path):
    directory = RunDirectory.create(tmp_path, job.config, job.facts)
    (shard,) = plan_shards(plan_trials((0,), 2, 0), 2)
    do_shard(Order(directory.path, shard, "cpu"), lambda event: None)
    (first, _) = sorted(directory.path.glob("trials/*"))
    whole = first.read_bytes()
    first.write_bytes(whole[:-5])
    do_shard(Order(directory.path, shard, "cpu"), lambda event: None)
    assert first.read_bytes() == whole


def test_no_run_directory(job, tmp_path):
    (shard,) = plan_shards(plan_trials((0,), 1, 0), 1)
    with pytest.raises(RunError, match=r"there is no run directory .*every node sees"):
        do_shard(Order(tmp_path / "elsewhere", shard, "cpu"), lambda event: None)


def test_other_versions_than_the_run(job, tmp_path, monkeypatch):
    directory = RunDirectory.create(tmp_path, job.config, job.facts)
    (shard,) = plan_shards(plan_trials((0,), 1, 0), 1)
    monkeypatch.setattr("platform.python_version", lambda: "3.99")
    with pytest.raises(RunError, match=r"cannot help .*versions\.python: .* 3\.99 asked for"):
        do_shard(Order(directory.path, shard, "cpu"), lambda event: None)


def test_trials_that_the_driver_does_not_see(job, tmp_path, monkeypatch):
    class Liar(Here):
        def events(self):
            return [(self.waiting.popleft(), ShardDone(None))]

    @contextmanager
    def workers(run, job):
        yield Liar(run)

    monkeypatch.setattr("amfast.cluster.spread._VISIBLE", 0)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(RunError, match=r"3 of its trials are not in .*every node shares"):
        execute(job, tmp_path, executor=Spread(workers))


def test_progress_of_shards_is_one_story(job, tmp_path):
    heard = []
    executor, _ = spread(shard_trials=3)
    execute(job, tmp_path, executor=executor, listener=Listener(on_progress=heard.append))
    assert [now.done for now in heard] == [3 * step for step in range(1, 7)] * 2
    parts = [Progress(2, 3, 4, 9, 7, 0.5), Progress(1, 1, 1, 9, 1, 0.2)]
    assert _together(parts) == Progress(3, 1, 4, 9, 8, pytest.approx(0.4))


def test_the_furthest_of_a_trial_is_taken():
    def at(trials, step):
        slots = Slots.begin([Trial(0, i, 0) for i in trials], torch.zeros(len(trials), 2), 9)
        slots.step.fill_(step)
        return slots

    both = united([at([0, 1], 4), at([1, 2], 6)])
    assert [trial.index for trial in both.trials] == [0, 1, 2]
    assert both.step.tolist() == [4, 6, 6]


def test_a_task_of_nothing():
    with pytest.raises(UsageError, match="0 trials in a task"):
        spread(shard_trials=0)
