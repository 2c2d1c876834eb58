"""Train the classifier whose features measure the digits, and write its weights beside this file.

    python workflow/resources/make_digits_features.py

Run once; the weights lie in the repository, so that distances of different machines are on one scale. Training sees
one half of the digits, drawn from train and test alike; the accuracy on the other half is printed. The features are
then scaled to variance 1 each, so that none outweighs the others in a distance.
"""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

from targetwise.data.datasets import digits
from targetwise.files import sha256_of_file
from targetwise.metric.extractors import DigitsFeatures

OUTPUT = Path(__file__).with_name("digits_features.safetensors")
EPOCHS, BATCH, LEARNING_RATE = 60, 64, 2e-3


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    arrays = digits()
    images = torch.from_numpy(np.concatenate([arrays["train"], arrays["test"]]))
    labels = torch.from_numpy(np.concatenate([arrays["train_labels"], arrays["test_labels"]]))
    seen, held_out = slice(0, None, 2), slice(1, None, 2)
    body = DigitsFeatures()
    classifier = nn.Sequential(body, nn.SiLU(), nn.Linear(32, 10))
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=LEARNING_RATE, weight_decay=1e-2)
    for _ in range(EPOCHS):
        order = torch.randperm(len(images[seen]))
        for batch in order.split(BATCH):
            loss = torch.nn.functional.cross_entropy(classifier(images[seen][batch]), labels[seen][batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.inference_mode():
        accuracy = (classifier(images[held_out]).argmax(1) == labels[held_out]).float().mean().item()
        deviation = body(images[seen]).std(dim=0)
        body[-1].weight /= deviation[:, None]
        body[-1].bias /= deviation
    OUTPUT.write_bytes(save(body.state_dict()))
    print(f"accuracy on the other half: {accuracy:.4f}\nsha256 {sha256_of_file(OUTPUT)}")


if __name__ == "__main__":
    main()
