import os
import signal
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from distributed import Client, LocalCluster

from pattern_lens.errors import ClusterLostError, MapOptionError, NoWorkersError
from pattern_lens.mapping import run_batches


def folders(items):
    for item in items:
        time.sleep(0.02)
        yield item, str(Path.cwd()), psutil.Process().ppid()


def hang(items):
    for item in items:
        if item:
            time.sleep(1e6)
        yield item


def killers(items):
    for item in items:
        if item == "kill":
            os.kill(psutil.Process().ppid(), signal.SIGKILL)
            time.sleep(10)
        yield item


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("processes", [True, False])
def test_a_local_cluster_is_used_as_it_is(processes):
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    with LocalCluster(processes=processes, **options) as local, Client(local) as client:
        found = list(run_batches(folders, [[i] for i in range(8)], client=client))
        assert sorted(outcome.results[0][0] for outcome in found) == [*range(8)]
        assert client.status == "running"
        assert client.submit(abs, -1).result() == 1


def test_workers_in_folders_of_their_own_share_the_work(cluster):
    found = list(run_batches(folders, [[i] for i in range(20)], client=cluster.address))
    assert sorted(outcome.results[0][0] for outcome in found) == [*range(20)]
    used = {outcome.results[0][1] for outcome in found}
    assert len(used) == 2
    assert all(folder.startswith(str(cluster.folder)) for folder in used)


def test_a_worker_that_is_killed_costs_its_batch_only(own_cluster):
    cluster = own_cluster(2)
    left = {str(i) for i in range(40)}
    killed = False
    batches = [[str(i)] for i in range(40)]
    for outcome in run_batches(folders, batches, client=cluster.address):
        item, _, pid = outcome.results[0]
        left.remove(item)
        if not killed:
            os.kill(pid, signal.SIGKILL)
            killed = True
    assert not left


def test_an_item_that_kills_every_worker_fails_alone(own_cluster):
    cluster = own_cluster(0)
    cluster.add_worker("--nanny")
    cluster.add_worker("--nanny")
    with Client(cluster.address, set_as_default=False) as client:
        client.run_on_scheduler(_allow_one_failure)
    batches = [[1, "kill", 2], [3], [4]]
    found = {o.index: o.results for o in run_batches(killers, batches, client=cluster.address)}
    assert (found[0][0], found[0][2], found[1], found[2]) == (1, 2, (3,), (4,))
    assert found[0][1].error == "ChildProcessError"
    assert found[0][1].message == "every worker that computed it ended meanwhile"


def _allow_one_failure(dask_scheduler):
    dask_scheduler.allowed_failures = 1


def test_a_cluster_that_is_lost_on_the_way(own_cluster):
    cluster = own_cluster(1)
    with closing(run_batches(folders, [[i] for i in range(999)], client=cluster.address)) as found:
        next(found)
        cluster.scheduler.kill()
        begun = time.monotonic()
        with pytest.raises(
            ClusterLostError, match=r"was lost, .* what was done before stays stored"
        ):
            list(found)
    assert time.monotonic() - begun < 5


def test_workers_that_lose_their_scheduler_end_whatever_an_item_does(own_cluster, all_end):
    cluster = own_cluster(2)
    with closing(run_batches(hang, [[0], [0, 1], [1], [1]], client=cluster.address)) as found:
        next(found)
        processes = [psutil.Process(popen.pid) for popen in cluster.processes]
        cluster.scheduler.kill()
        with pytest.raises(ClusterLostError):
            list(found)
    assert all_end(processes)


def test_a_worker_that_is_told_to_end_gives_its_batch_back(own_cluster, tmp_path, eventually):
    cluster = own_cluster(1)
    asked = tmp_path / "asked"

    def wait_once(items):
        for item in items:
            if item == 2 and not asked.exists():
                asked.touch()
                time.sleep(1e6)
            yield item

    with closing(run_batches(wait_once, [[0], [1, 2, 3]], client=cluster.address)) as found:
        assert next(found).results == (0,)
        assert eventually(asked.exists)
        cluster.processes[1].terminate()
        cluster.add_worker()
        assert next(found).results == (1, 2, 3)


def test_a_client_that_is_closed_on_the_way(own_cluster):
    cluster = own_cluster(1)
    client = Client(cluster.address, set_as_default=False)
    with closing(run_batches(folders, [[i] for i in range(999)], client=client)) as found:
        next(found)
        client.close()
        with pytest.raises(ClusterLostError, match="was lost"):
            list(found)
    with pytest.raises(ClusterLostError, match="client is closed"):
        list(run_batches(folders, [[1]], client=client))


def test_a_cluster_that_is_not_there():
    import dask

    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(
            ClusterLostError, match=r"cannot connect to a cluster at 'tcp://127.0.0.1:1'"
        ),
    ):
        list(run_batches(folders, [[1]], client="tcp://127.0.0.1:1"))


def test_a_cluster_without_workers(own_cluster, monkeypatch):
    cluster = own_cluster(0)
    monkeypatch.setattr("pattern_lens.mapping.cluster._TELL_SECONDS", 0.0)
    with (
        pytest.warns(RuntimeWarning, match="has no workers; waiting for some for up to 2 s"),
        pytest.raises(NoWorkersError, match=r"has had no workers for . s; start some"),
    ):
        list(run_batches(folders, [[1]], client=cluster.address, wait_seconds=2))


def test_workers_that_come_late_are_waited_for(own_cluster):
    cluster = own_cluster(0)
    found = run_batches(folders, [[i] for i in range(3)], client=cluster.address)
    cluster.add_worker()
    assert len(list(found)) == 3


def test_something_that_is_no_client():
    with pytest.raises(MapOptionError, match=r"client is a int, expected a distributed\.Client"):
        list(run_batches(folders, [[1]], client=5))
