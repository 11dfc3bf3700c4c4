"""The models that are compiled: real sizes, random weights from a fixed seed, nothing to download."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

SEED = 20240501


@dataclass(frozen=True)
class Task:
    """What is compiled, and what is computed with it. `run` returns the tensors that must come out equal."""

    model: Any
    run: Callable[[Any], Sequence[Any]]


def resnet18() -> Task:
    """torchvision's ResNet-18, inference on one image."""
    import torch
    import torchvision

    model = torchvision.models.resnet18(weights=None).eval()
    image = torch.randn(1, 3, 224, 224)
    return Task(model, lambda compiled: _without_gradients(lambda: [compiled(image)]))


def resnet18_training() -> Task:
    """ResNet-18, one training step on two images. Norms use their running statistics: with two images, batch statistics
    amplify the last bits of whatever sums in another order."""
    import torch
    import torchvision

    model = torchvision.models.resnet18(weights=None).eval()
    images = torch.randn(2, 3, 64, 64)
    return Task(model, lambda compiled: _training_step(model, lambda: compiled(images).square().mean()))


def gpt2() -> Task:
    """GPT-2 small (12 layers, 124 million parameters), inference on 64 tokens."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(use_cache=False)
    model = GPT2LMHeadModel(config).eval()
    tokens = torch.randint(config.vocab_size, (1, 64))
    return Task(model, lambda compiled: _without_gradients(lambda: [compiled(tokens).logits]))


def bert_training() -> Task:
    """A small BERT (4 layers of 256), one training step: forward, loss, backward."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=1024,
        vocab_size=8192,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = BertForSequenceClassification(config).train()
    # On a CPU, Inductor adds embedding gradients with atomics from several threads, so where many rows fall on one the sum's
    # last bits change from call to call, cache or not. No token comes twice, and the one token type is not trained.
    tokens = torch.randperm(config.vocab_size)[: 4 * 64].view(4, 64)
    model.bert.embeddings.token_type_embeddings.weight.requires_grad_(False)
    labels = torch.randint(config.num_labels, (4,))
    return Task(model, lambda compiled: _training_step(model, lambda: compiled(tokens, labels=labels).loss))


def bert() -> Task:
    """BERT base (12 layers of 768), inference on 64 tokens."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig()
    model = BertForSequenceClassification(config).eval()
    tokens = torch.randint(config.vocab_size, (1, 64))
    return Task(model, lambda compiled: _without_gradients(lambda: [compiled(tokens).logits]))


def mlp_training() -> Task:
    """A toy of two layers, one training step: the least that uses every cache, for the tests."""
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
    batch = torch.randn(8, 16)
    return Task(model, lambda compiled: _training_step(model, lambda: compiled(batch).square().mean()))


MODELS: dict[str, Callable[[], Task]] = {
    "resnet18": resnet18,
    "resnet18-training": resnet18_training,
    "gpt2": gpt2,
    "bert": bert,
    "bert-training": bert_training,
    "mlp-training": mlp_training,
}


def _without_gradients(compute: Callable[[], Sequence[Any]]) -> Sequence[Any]:
    import torch

    with torch.no_grad():
        return compute()


def _training_step(model: Any, loss_of: Callable[[], Any]) -> Sequence[Any]:
    model.zero_grad(set_to_none=True)
    loss = loss_of()
    loss.backward()
    return [loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]
