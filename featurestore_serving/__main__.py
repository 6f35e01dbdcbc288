"""python -m featurestore_serving"""

import os
import sys

from featurestore.settings import Settings
from featurestore_serving.daemon import main

if __name__ == "__main__":
    sys.exit(main(Settings.from_env(os.environ)))  # noqa: TID251  # an entry point
