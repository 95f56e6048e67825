"""`python -m chaos.publisher REPOSITORY MODEL VERSION`: publish a version's files as the trainer does."""

import shutil
import sys
from functools import partial
from pathlib import Path

from inferry_trainer.errors import PublishError
from inferry_trainer.publishing.publish import publish_version

if __name__ == "__main__":
    repository, model, made = sys.argv[1:]
    try:
        publish_version(Path(repository), model, partial(shutil.copytree, made, dirs_exist_ok=True))
    except PublishError as error:
        sys.exit(str(error))
    except shutil.Error as error:
        sys.exit(f"copying: {error}")
