"""Case 9."""

from .. import program


def fit(model, train_loader, val_loader, test_loader, optimizer, scheduler, epochs, epoch=program.epoch):
    rows, best = [], 0.0
    for _ in range(epochs):
        rows.append((*epoch(model, train_loader, optimizer, scheduler), *epoch(model, val_loader)))
        best = max(best, epoch(model, test_loader)[1])
    return rows, best
