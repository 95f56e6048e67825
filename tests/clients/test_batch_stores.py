"""Batch jobs from and to an object store: the same results, exactly once, though nothing can be renamed there."""

import csv
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from inferry_client.batch.addresses import is_address, read_address
from inferry_client.batch.decode import DecodeSettings, decode_chunk
from inferry_client.batch.errors import JobError
from inferry_client.batch.inputs import InputOptions, open_inputs
from inferry_client.batch.merge import merge
from inferry_client.batch.remote import lease as leases
from inferry_client.batch.remote import objects as store
from inferry_client.batch.remote import place as places
from inferry_client.batch.remote.objects import ObjectError, put_object, read_object
from inferry_client.batch.shard import Shard
from inferry_client.cli import main
from testkit import brightness_model
from testkit.batch_jobs import opened, run_batch, run_opened
from testkit.s3_server import environment, make_bucket, object_store, objects
from testkit.scripted_server import ScriptedServer

_KEPT = ("part-", "errors.csv", "_SUCCESS", "_plan.json")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with object_store() as address:
        yield address


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    for name, value in environment(endpoint).items():
        monkeypatch.setenv(name, value)
    return make_bucket(endpoint, f"bucket{abs(hash(request.node.name)) % 10**12}")


def put(address: str, data: bytes) -> None:
    put_object(read_address(address), data, replaces=None)


def outcome(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name.startswith(_KEPT)}


def local_outcome(out: Path) -> dict[str, bytes]:
    return outcome({path.name: path.read_bytes() for path in out.iterdir() if path.is_file()})


def put_pictures(bucket: str, folder: Path, count: int) -> None:
    """As files, and one that is no picture, in a folder and in a bucket; listed there in pages."""
    brightness_model.write_pictures(folder, count)
    (folder / "0003.png").write_bytes(b"no picture")
    (folder / "notes.md").write_text("none")
    (folder / "sub").mkdir()
    (folder / "sub" / "ä b#%20?.png").write_bytes((folder / "0000.png").read_bytes())
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            put(f"{bucket}/in/{path.relative_to(folder)}", path.read_bytes())


def test_a_job_in_a_bucket_has_the_bytes_of_one_in_a_folder_and_resumes(
    brightness_server: ScriptedServer, tmp_path: Path, bucket: str
) -> None:
    put_pictures(bucket, tmp_path / "in", 24)
    run_batch(brightness_server, tmp_path / "in", tmp_path / "out")
    source = open_inputs([f"{bucket}/in/"], InputOptions())
    summary = run_batch(brightness_server, source, f"{bucket}/results")
    assert (summary.classified, summary.bad, dict(source.left_out)) == (24, 1, {".md": 1})
    found = objects(f"{bucket}/results")
    assert outcome(found) == local_outcome(tmp_path / "out")
    assert not [name for name in found if name.startswith("_lease")]
    brightness_server.received.clear()
    assert run_batch(brightness_server, source, f"{bucket}/results").resumed == 25
    assert brightness_server.requests("ModelInfer") == []
    with pytest.raises(JobError, match="holds another job: another number of labels"):
        run_batch(brightness_server, source, f"{bucket}/results", top_k=2)
    run_batch(brightness_server, source, f"{bucket}/results", top_k=2, overwrite=True)
    put(f"{bucket}/in/9.png", (tmp_path / "in" / "0001.png").read_bytes())
    assert run_batch(brightness_server, source, f"{bucket}/results", top_k=2, incremental=True).classified == 25


def test_archives_tables_and_lists_in_a_bucket_are_read_as_files_are(
    brightness_server: ScriptedServer, tmp_path: Path, bucket: str
) -> None:
    paths = brightness_model.write_pictures(tmp_path / "in", 12)
    with tarfile.open(tmp_path / "a.tar", "w") as tar, tarfile.open(tmp_path / "b.tar.gz", "w:gz") as packed:
        for path in paths:
            tar.add(path, path.name)
            packed.add(path, path.name)
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        for path in paths:
            archive.write(path, path.name)
    pq.write_table(pa.table({"image": [path.read_bytes() for path in paths]}), tmp_path / "d.parquet")
    with (tmp_path / "e.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path"], *[[f"in/{path.name}"] for path in paths]])
    for path in (*paths, *(tmp_path / name for name in ("a.tar", "b.tar.gz", "c.zip", "d.parquet", "e.csv"))):
        put(f"{bucket}/x/{path.relative_to(tmp_path)}", path.read_bytes())
    for name in ("a.tar", "b.tar.gz", "c.zip", "d.parquet", "e.csv"):
        run_batch(brightness_server, open_inputs([str(tmp_path / name)], InputOptions()), tmp_path / f"{name}.out")
        source = open_inputs([f"{bucket}/x/{name}"], InputOptions())
        run_batch(brightness_server, source, f"{bucket}/out/{name}")
        parts = {key: data for key, data in objects(f"{bucket}/out/{name}").items() if key.startswith("part-")}
        here = {path.name: path.read_bytes() for path in (tmp_path / f"{name}.out").glob("part-*")}
        assert parts == here, name
        assert len(parts) == 2
    both = open_inputs([f"{bucket}/x/[ab].tar*"], InputOptions())
    assert [record.id for record in both.records()][::23] == [
        f"{bucket}/x/a.tar/0000.png",
        f"{bucket}/x/b.tar.gz/0011.png",
    ]
    with pytest.raises(JobError, match="no object is called like"):
        open_inputs([f"{bucket}/x/*.jpg"], InputOptions())


def test_a_crash_at_any_put_leaves_a_job_that_resumes_to_the_same_bytes(
    brightness_server: ScriptedServer, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class CrashError(BaseException): ...

    monkeypatch.setattr(leases, "STALE_S", 1e9)
    brightness_model.write_pictures(tmp_path / "in", 14)
    (tmp_path / "in" / "0007.png").write_bytes(b"no picture")
    run_batch(brightness_server, tmp_path / "in", tmp_path / "undisturbed")
    left = 0

    def put_or_crash(address: Any, data: bytes, *, replaces: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 1:
            raise CrashError
        done = put_object(address, data, replaces=replaces)
        if left == 0:
            raise CrashError  # it is there, and nobody knows
        return done

    monkeypatch.setattr(places, "put_object", put_or_crash)
    crashes = 0
    for at in range(1, 40):
        left, out = at, f"{bucket}/out{at}"
        try:
            run_batch(brightness_server, tmp_path / "in", out)
        except CrashError:
            crashes, left = crashes + 1, -1
            run_batch(brightness_server, tmp_path / "in", out)
        assert outcome(objects(out)) == local_outcome(tmp_path / "undisturbed")
        if left > 1:
            break
    assert crashes >= 6


def test_shards_in_a_bucket_are_merged(brightness_server: ScriptedServer, tmp_path: Path, bucket: str) -> None:
    brightness_model.write_pictures(tmp_path / "in", 25)
    run_batch(brightness_server, tmp_path / "in", tmp_path / "out")
    for index in range(2):
        run_batch(brightness_server, tmp_path / "in", f"{bucket}/out", shard=Shard(index, 2))
    assert merge(f"{bucket}/out", [])[1:] == (25, 0)
    assert outcome(objects(f"{bucket}/out")) == local_outcome(tmp_path / "out")


def test_a_second_job_in_a_bucket_is_refused_while_the_first_runs(
    brightness_server: ScriptedServer, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    brightness_model.write_pictures(tmp_path / "in", 12)
    with opened(brightness_server.address, tmp_path / "in", f"{bucket}/out") as first:
        address = read_address(f"{bucket}/out/_lease")
        waited: list[float] = []

        def renew_meanwhile(seconds: float) -> None:
            waited.append(seconds)
            found = store.look_at(address)
            put_object(address, read_object(address) + b" 1", replaces=found)

        with (
            pytest.raises(JobError, match="another job is writing into"),
            leases.leased(address, "there", wait=renew_meanwhile),
        ):
            pass
        assert waited == [leases.STALE_S]
        assert run_opened(first).classified == 12  # whose next renewal finds its own name


@pytest.mark.parametrize("ended", [True, False])
def test_a_lease_of_a_killed_job_is_taken_and_the_killed_one_writes_nothing_any_more(
    brightness_server: ScriptedServer, tmp_path: Path, bucket: str, ended: bool
) -> None:
    brightness_model.write_pictures(tmp_path / "in", 12)
    address = read_address(f"{bucket}/out/_lease")
    if ended:
        put(str(address), b'{"host": "elsewhere", "pid": 1, "token": "a"} 7')
        with leases.leased(address, "there", wait=lambda _: None) as lease:
            assert lease.held
        return
    with (
        opened(brightness_server.address, tmp_path / "in", f"{bucket}/out") as stuck,
        leases.leased(address, "there", wait=lambda _: None) as taken,
    ):
        lease_of_stuck = stuck.store._place._lease  # type: ignore[attr-defined]
        assert taken.held
        assert not lease_of_stuck.renew()
        with pytest.raises(JobError, match="stood still for so long"):
            run_opened(stuck)
        assert not [name for name in objects(f"{bucket}/out") if name.startswith("part-")]


def test_a_lease_that_cannot_be_renewed_in_time_is_held_no_longer(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    with leases.leased(read_address(f"{bucket}/out/_lease"), "there", clock=lambda: now) as lease:
        monkeypatch.setattr(leases, "put_object", lambda *_, **__: (_ for _ in ()).throw(ObjectError(0, "no answer")))
        assert lease.renew()
        now = leases.STALE_S
        assert not lease.held
        monkeypatch.undo()


def test_what_another_job_wrote_is_not_replaced_but_the_same_bytes_are_no_error(bucket: str) -> None:
    one, other = places.open_object_place(f"{bucket}/out"), places.open_object_place(f"{bucket}/out")
    with one.owned([]):
        other._lease = one._lease
        one.write("part-00000.csv", b"a")
        other.write("part-00000.csv", b"a")
        one.write("part-00000.csv", b"b")  # its own
        with pytest.raises(JobError, match="another job has written it"):
            other.write("part-00000.csv", b"c")
        assert one.read("part-00000.csv") == b"b"


def test_a_store_that_ignores_conditions_is_refused(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def put_anyway(address: Any, data: bytes, *, replaces: Any) -> Any:
        store.delete_object(address)
        return put_object(address, data, replaces=None)

    monkeypatch.setattr(leases, "put_object", put_anyway)
    with (
        pytest.raises(JobError, match="ignores conditions"),
        leases.leased(read_address(f"{bucket}/out/_lease"), "there"),
    ):
        pass


def test_an_object_replaced_after_it_was_listed_is_an_error_and_never_another_picture(
    tmp_path: Path, bucket: str
) -> None:
    paths = brightness_model.write_pictures(tmp_path / "in", 2)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(paths[0], "0.png")
    put(f"{bucket}/a.tar", (tmp_path / "a.tar").read_bytes())
    put(f"{bucket}/in/1.png", paths[1].read_bytes())
    records = [next(open_inputs([name], InputOptions()).records()) for name in (f"{bucket}/a.tar", f"{bucket}/in")]
    settings = DecodeSettings(brightness_model.PREPROCESSING.SerializeToString(), 1 << 20)
    assert not decode_chunk([record.content for record in records], settings).faults
    for name in ("a.tar", "in/1.png"):
        found = store.look_at(read_address(f"{bucket}/{name}"))
        put_object(
            read_address(f"{bucket}/{name}"), read_object(read_address(f"{bucket}/{name}")) + b" ", replaces=found
        )
    decoded = decode_chunk([record.content for record in records], settings)
    assert [fault.reason for fault in decoded.faults.values()] == ["it was replaced while the job ran"] * 2


def test_what_cannot_be_reached_is_named(bucket: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for inputs, named in (
        (["s3://no-such-bucket-here/x"], "cannot be listed"),
        ([f"{bucket}/none.tar"], "none.tar cannot be read: no such object"),
        (["ftp://host/x"], "begins with one of s3://"),
        (["s3:///x"], "names no bucket"),
        ([f"{bucket}/nothing/"], "no pictures"),
    ):
        assert main(["batch", *inputs, "--out", str(tmp_path / "out"), "--onnx", "nowhere"]) == 1
        assert named in capsys.readouterr().err
    for out, named in (
        ("https://host/x", "is a web server's"),
        ("s3://no-such-bucket-here/x", "cannot be listed"),
    ):
        assert main(["batch", str(tmp_path), "--out", out, "--onnx", "nowhere"]) == 1
        assert named in capsys.readouterr().err


def test_paths_are_no_addresses() -> None:
    assert not any(map(is_address, ("a/b", "/a//b", "C:\\a", "a:b", "./s3://b", "//host/a")))
    assert all(map(is_address, ("s3://b/k", "HTTPS://h/k", "gs://b", "file:///x")))
