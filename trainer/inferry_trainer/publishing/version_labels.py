"""Labels of published versions: `canary` points at the one that was just published."""

from pathlib import Path

from inferry_proto.version_labels import (
    LABELS_FILE,
    VersionLabelsError,
    check_label,
    read_labels_and_traffic,
    read_version_labels,
    write_version_labels,
)
from inferry_trainer.errors import PublishError
from inferry_trainer.publishing.catalog import versions_of

STABLE = "stable"
_SETTINGS_FILE = "config.pbtxt"


def check_new_label(label: str) -> None:
    """Refuse what cannot be a label, before any work.

    Raises:
        PublishError: says what a label may be.
    """
    try:
        check_label(label)
    except VersionLabelsError as error:
        raise PublishError(str(error)) from error


def point_label_at(version: Path, label: str) -> None:
    """Let a label name a published version; it no longer names the one before.

    Raises:
        PublishError: the labels that are there cannot be read, or the new ones not written.
    """
    try:
        labels = read_version_labels(version.parent)
        write_version_labels(version.parent, labels | {label: int(version.name)})
    except (VersionLabelsError, OSError) as error:
        raise PublishError(f"{version} is published, but could not be labelled {label!r}: {error}") from error


def version_to_keep(model: Path, label: str) -> int | None:
    """The version that needs the label `stable` and all traffic, so that requests stay with it.

    Servers send requests that name no version where `traffic` says, and to the newest version where there is none: a
    model without traffic would give all of them to the version that is published next.

    Args:
        model: a model's folder in a repository; it need not be there.
        label: that the next version will have.

    Returns:
        A version's number; None where nothing need be done: there is traffic already, or no version yet.

    Raises:
        PublishError: which version gets these requests cannot be told, or all of them would follow the label.
    """
    try:
        known = read_labels_and_traffic(model)
    except VersionLabelsError as error:
        raise PublishError(f"nothing was published: {error}") from error
    wanted = f'{{"labels": {{"{STABLE}": VERSION}}, "traffic": {{"{STABLE}": 100}}}}'
    if any(known.traffic.values()):
        if not any(weight for name, weight in known.traffic.items() if name != label):  # guard: traffic-not-all
            raise PublishError(
                f"nothing was published: {model / LABELS_FILE} gives all traffic to the label {label!r}, and the new "
                f"version would get all requests; expected traffic for another label, as {wanted}"
            )
        return None
    versions = versions_of(model)
    if not versions:
        return None
    newest = int(versions[-1].name)
    if _limits_versions(model):  # guard: traffic-version-policy
        raise PublishError(
            f"nothing was published: {model / _SETTINGS_FILE} has a version_policy, so the version that gets the "
            f"requests cannot be told; expected traffic in {LABELS_FILE}, as {wanted}"
        )
    if known.labels.get(STABLE, newest) != newest:  # guard: traffic-stable-elsewhere
        raise PublishError(
            f"nothing was published: {model / LABELS_FILE} has no traffic, so requests go to version {newest}, and its "
            f"label {STABLE!r} names version {known.labels[STABLE]}; expected traffic that says which, as {wanted}"
        )
    return newest


def keep_traffic(model: Path, label: str) -> int | None:
    """Let requests that name no version stay where they are, whatever version is published next.

    Args:
        model: a model's folder in a repository.
        label: that the next version will have.

    Returns:
        The version that now has the label `stable` and all traffic; None where nothing had to be changed.

    Raises:
        PublishError: as `version_to_keep`, or the labels cannot be written.
    """
    version = version_to_keep(model, label)
    if version is not None:
        try:
            write_version_labels(model, read_version_labels(model) | {STABLE: version}, {STABLE: 100})
        except (VersionLabelsError, OSError) as error:
            raise PublishError(f"nothing was published: {error}") from error
    return version


def _limits_versions(model: Path) -> bool:
    """Whether the model's settings say which versions are served."""
    try:
        return "version_policy" in (model / _SETTINGS_FILE).read_text("utf-8", "replace")
    except FileNotFoundError:
        return False
    except OSError as error:
        raise PublishError(f"nothing was published: {error}") from error
