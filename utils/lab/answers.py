"""The suspects, and which of them is at work in which case. Whoever reads on spoils the game."""

from dataclasses import dataclass, field

from .bench import Design
from .measure import COST

HEALTHY = 3  # instruments that it takes to call a program healthy
SUSPECTS = {
    "healthy": "nothing is wrong (name three instruments as evidence)",
    "labels shuffled": "labels are those of other images",
    "data sorted": "training images come sorted by class",
    "view for permute": "the bytes of an image are given a new shape where its axes should be exchanged",
    "other normalisation": "evaluation normalises its images in another way than training",
    "in place": "an operation in place changes data that are needed again",
    "softmax": "a softmax stands before the cross-entropy, which has one of its own",
    "ReLU before addition": "a block's last ReLU acts before the shortcut is added",
    "one path without stride": "the two paths of a block have different strides",
    "not as described": "layers are missing, or have another size than the description says",
    "untrained layers": "some layers are never trained: frozen, or unknown to the optimizer",
    "no zero_grad": "gradients of earlier batches are still there",
    "learning rate": "the learning rate is a hundred times too large",
    "scheduler rhythm": "the scheduler is stepped once an epoch, but was planned for batches",
    "sum of means": "batch means are added up and divided by the number of images",
    "no eval": "evaluation runs in training mode",
    "chosen on test": "the reported accuracy is that of the epoch which was best on the test images",
}


@dataclass(frozen=True)
class Answer:
    """faults: {suspect: the instruments that show it, the cheapest one that tells it from all others first}."""

    faults: dict
    design: Design = field(default_factory=Design)

    @property
    def best(self):
        """The least cost at which the case can be diagnosed, in minutes."""
        if "healthy" in self.faults:
            return sum(sorted(COST.values())[:HEALTHY])
        return sum(COST[name] for name in {shown[0] for shown in self.faults.values()})


_TRAINS_BADLY = ("overfit_one_batch", "input_baseline")

ANSWERS = {
    0: Answer({"untrained layers": ("weights_moved", "gradient_norms", *_TRAINS_BADLY)}),
    1: Answer({"data sorted": ("look_at_labels", "input_baseline")}, Design(batch_size=20)),
    2: Answer({"softmax": ("shape_trace", "gradient_norms", "update_ratios", *_TRAINS_BADLY)}, Design(widths=(8, 12, 32), epochs=7)),
    3: Answer(
        {"untrained layers": ("shape_trace", "weights_moved", "gradient_norms", "dependence", "batch_sizes", *_TRAINS_BADLY)},
        Design(epochs=5),
    ),
    4: Answer({"healthy": ()}, Design(widths=(8, 16, 24), batch_size=40, epochs=5)),
    5: Answer({"in place": ("look_at_images",)}, Design(blocks=(1, 2, 1))),
    6: Answer({"sum of means": ("first_loss", "batch_sizes"), "no eval": ("dependence", "batch_sizes")}, Design(widths=(8, 16, 24))),
    7: Answer({"ReLU before addition": ("shape_trace",)}, Design(blocks=(2, 1, 1))),
    8: Answer({"learning rate": ("update_ratios",)}, Design(batch_size=40)),
    9: Answer({"chosen on test": ("data_use",)}, Design(widths=(12, 16, 24), epochs=8)),
    10: Answer({"view for permute": ("look_at_images",)}, Design(batch_size=20, epochs=5)),
    11: Answer(
        {"no zero_grad": ("gradient_norms", "update_ratios"), "other normalisation": ("look_at_images",)},
        Design(blocks=(1, 1, 2)),
    ),
    12: Answer({"not as described": ("shape_trace", "gradient_norms", "weights_moved")}, Design(blocks=(2, 2, 2))),
    13: Answer({"labels shuffled": ("look_at_labels", "input_baseline")}, Design(blocks=(2, 1, 1), epochs=5)),
    14: Answer({"scheduler rhythm": ("update_ratios",)}, Design(widths=(10, 16, 32))),
    15: Answer({"one path without stride": ("shape_trace",)}, Design(widths=(16, 32), blocks=(1, 1), stem=(7, 8))),
    16: Answer({"not as described": ("shape_trace",)}, Design(stem=(5, 1), batch_size=40, epochs=5)),
}


def judge(number, named, evidence):
    """Returns "right", "part" or "wrong": whether these suspects explain the case, each shown by an instrument among the evidence."""
    faults = ANSWERS[number].faults
    if "healthy" in faults:
        return "right" if named == {"healthy"} and len(evidence) >= HEALTHY else "wrong"
    explained = {fault for fault, shown in faults.items() if fault in named and evidence & set(shown)}
    if explained != named:
        return "wrong"
    return "right" if explained == set(faults) else "part"
