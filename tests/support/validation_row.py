"""A validation of a reward model as a run keeps it, written by hand."""

FOUND = {
    "pairs": 412, "judgments": 400, "prompts": 96,
    "accuracy": {"value": 0.684, "low": 0.631, "high": 0.739, "pairs": 412, "prompts": 96},
    "calibration": {
        "confidence": 0.61, "accuracy": 0.68, "ece": 0.074, "ece_by_chance": 0.031,
        "bins": [
            {"low": 0.5, "high": 0.55, "pairs": 0, "confidence": None, "accuracy": None},
            {"low": 0.55, "high": 0.6, "pairs": 100, "confidence": 0.58, "accuracy": 0.66},
            {"low": 0.6, "high": 0.65, "pairs": 312, "confidence": 0.62, "accuracy": 0.7},
        ],
    },
    "curve": {
        "points": [
            {"judgments": 60.0, "accuracy": 0.6, "low": 0.52, "high": 0.66},
            {"judgments": 320.0, "accuracy": 0.68, "low": 0.62, "high": 0.73},
        ],
        "asymptote": 0.2, "half_saturation": 100.0, "additional_judgments": 200, "gain": {"value": 0.0213, "low": 0.004, "high": 0.0391},
    },
    "by_kind": [
        {
            "kind": "short_story", "pairs": 300, "prompts": 80,
            "accuracy": {"value": 0.7, "low": 0.6, "high": 0.8, "pairs": 300, "prompts": 80},
        },
        {"kind": "<i>code", "pairs": 12, "prompts": 4, "accuracy": None},
    ],
    "by_annotator": [
        {
            "annotator_id": 1, "pairs": 390, "prompts": 90,
            "accuracy": {"value": 0.66, "low": 0.6, "high": 0.7, "pairs": 390, "prompts": 90},
        },
        {"annotator_id": 2, "pairs": 22, "prompts": 6, "accuracy": None},
    ],
    "high_loss_judgments": [
        {"judgment_id": 31, "comparison_id": 12, "annotator_id": 1, "probability": 0.004},
        {"judgment_id": 32, "comparison_id": 13, "annotator_id": 2, "probability": 0.26},
    ],
}  # fmt: skip
