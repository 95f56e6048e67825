"""The labels of pictures: `python classify.py MODEL PICTURE...`; $INFERRY_SERVER says where the server is."""

import sys

from inferry_client import Client

model, *pictures = sys.argv[1:]
with Client() as client:
    for picture, (best, *_) in zip(pictures, client.classify(model, pictures).images, strict=True):
        print(f"{picture}  {best.label}  {best.probability:.2%}")
