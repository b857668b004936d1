"""What each instrument must read where a suspect is at work, and nowhere else; used by the tests of the lab."""

LN10 = 2.3026


def first(row):
    return next(iter(row.values()))


def last(row):
    return list(row.values())[-1]


def layers(trace, kind):
    """(name, row) of the layers of a kind, without the number in front of the name."""
    return [(name.split()[-1], row) for name, row in trace.items() if row[0].startswith(kind)]


def described(trace, design):
    """Whether the layers are those that the design promises."""
    kernel, stride = design.stem
    stem = layers(trace, "Conv2d")[0][1][0] == f"Conv2d {kernel}×{kernel}, stride {stride}"
    return stem and len(layers(trace, "Block")) == sum(design.blocks)


def other_sizes(trace):
    """Whether a block's output is larger than that of its second batch norm."""
    rows = {name.split()[-1]: row for name, row in trace.items() if not name.split()[-1] == "?"}
    return any(name + ".bn2" in rows and rows[name + ".bn2"][1] != row[1] for name, row in rows.items() if row[0] == "Block")


# suspect: (its instrument, what the reading must satisfy). Two suspects that come in two forms have a line for each.
TELLS = {
    "labels shuffled": ("look_at_labels", lambda r, d: r["nearest class mean, share right"][0] < 0.15),
    "data sorted": ("look_at_labels", lambda r, d: int(first(r)[0].split(", ")[0]) <= 2),
    "view for permute": ("look_at_images", lambda r, d: r["training, pass 1"][4] < 0.65),
    "other normalisation": ("look_at_images", lambda r, d: abs(r["training, pass 1"][0] - r["validation, pass 1"][0]) > 0.2),
    "in place": ("look_at_images", lambda r, d: abs(r["validation, pass 2"][0] - r["validation, pass 1"][0]) > 0.2),
    "softmax": ("shape_trace", lambda r, d: last(r)[3] == 0),
    "ReLU before addition": ("shape_trace", lambda r, d: any(row[3] > 0 for _, row in layers(r, "Block"))),
    "one path without stride": ("shape_trace", lambda r, d: other_sizes(r)),
    "not as described": ("shape_trace", lambda r, d: not described(r, d)),
    "untrained layers: frozen": ("weights_moved", lambda r, d: min(row[0] for row in r.values()) == 0),
    "untrained layers: unknown": ("shape_trace", lambda r, d: any(name.endswith("?") for name in r)),
    "no zero_grad": ("gradient_norms", lambda r, d: abs(last(r)[0] - last(r)[1]) > 0.1 * last(r)[1]),
    "learning rate": ("update_ratios", lambda r, d: first(r)[0] > 3e-3),
    "scheduler rhythm": ("update_ratios", lambda r, d: last(r)[0] > 0.2 * max(row[0] for row in r.values())),
    "sum of means": ("first_loss", lambda r, d: first(r)[0] < 0.5 * LN10),
    "no eval": ("dependence", lambda r, d: first(r)[0] > 1e-3 and last(r)[0] < 1e-5),
    "chosen on test": ("data_use", lambda r, d: r["test"][0] > 1),
}
