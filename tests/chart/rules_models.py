"""Rules of where models and images come from: one source, and tags that keep their meaning."""

from chart.rule import Rule

_MODELS = {"models.from": "image", "models.image.reference": "registry.example.com/models:1"}

MODEL_RULES = (
    Rule(
        'and (eq $v.models.from "image") (not $v.models.image.reference)',
        "models.from is %v and models.image.reference is empty: expected the image that has the models",
        ("$v.models.from",),
        {"models.from": "image"},
        _MODELS,
    ),
    Rule(
        'and (eq $v.models.from "bucket") (not $v.models.bucket.url)',
        "models.from is %v and models.bucket.url is empty: expected the folder with the repository, as s3://...",
        ("$v.models.from",),
        {"models.from": "bucket"},
        {"models.from": "bucket", "models.bucket.url": "s3://models/production"},
    ),
    Rule(
        'and (ne $v.models.from "bucket") '
        "(or $v.models.bucket.url $v.models.bucket.secretName $v.models.bucket.egress)",
        "models.from is %v, and models.bucket has url %q, secretName %q and egress %v: nothing would be copied; "
        "expected models.from bucket, or none of them",
        ("$v.models.from", "$v.models.bucket.url", "$v.models.bucket.secretName", "toJson $v.models.bucket.egress"),
        {"models.bucket.url": "s3://models/production"},
        {"models.from": "bucket", "models.bucket.url": "s3://models/production"},
    ),
    Rule(
        'and (ne $v.models.from "image") $v.models.image.reference',
        "models.from is %v, and models.image.reference is %v: no image would be mounted; expected models.from image, "
        "or no reference",
        ("$v.models.from", "$v.models.image.reference"),
        {"models.image.reference": "registry.example.com/models:1"},
        _MODELS,
    ),
    Rule(
        'and (ne $v.models.from "claim") '
        "(or $v.models.claim.name $v.models.claim.storageClassName $v.models.claim.accessModes)",
        "models.from is %v, and models.claim has name %q, storageClassName %q and accessModes %v: there would be no "
        "claim; expected models.from claim, or none of them",
        (
            "$v.models.from",
            "$v.models.claim.name",
            "$v.models.claim.storageClassName",
            "toJson $v.models.claim.accessModes",
        ),
        {**_MODELS, "models.claim.name": "shared"},
        {"models.claim.name": "shared"},
    ),
    Rule(
        'or (and (eq $v.image.tag "latest") (not $v.image.digest)) '
        '(and (eq $v.models.from "image") (hasSuffix ":latest" $v.models.image.reference))',
        "image.tag is %q and models.image.reference %q: what the tag latest means changes, and no roll-back brings it "
        "back; expected the tag of a version, or a digest",
        ("$v.image.tag", "$v.models.image.reference"),
        {"image.tag": "latest"},
        {"image.tag": "0.2.0"},
    ),
)
