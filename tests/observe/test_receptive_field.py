"""Receptive fields against brute force: each pixel is changed by itself, and the neurons that notice are noted down."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from phosphene.errors import LayerError
from phosphene.models import Network, Preprocess
from phosphene.observe.receptive_field import receptive_fields

SIZE = (14, 18)
END = "end"
Run: TypeAlias = Callable[[Any, Tensor], Tensor]


class Net(nn.Module):
    """`run(net, images)` with `parts` to use; its last layer is `end`."""

    def __init__(self, run: Run, **parts: nn.Module) -> None:
        super().__init__()
        self.run, self.end = run, nn.Identity()
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.run(self, x))


class Fixed(nn.Module):
    """A constant."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.values: Tensor
        self.register_buffer("values", torch.rand(shape))

    def forward(self, x: Tensor) -> Tensor:
        """One for each image of the batch."""
        return self.values.expand(len(x), *self.values.shape)


def conv(channels: int, filters: int, kernel: Any, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(channels, filters, kernel, **options)


def halves(run: Run, **parts: nn.Module) -> Net:
    """`run` on a map `[N, 4, 14, 18]` whose channels 0 and 1 see a pixel, and whose channels 2 and 3 a window of 3 x 5."""
    own = {"near": conv(3, 2, 1), "far": conv(3, 2, (3, 5), padding=(1, 2))}
    return Net(lambda m, x: run(m, torch.cat([m.near(x), m.far(x)], 1)), **own, **parts)


def network(module: nn.Module, size: tuple[int, int] = SIZE, *, channels: int = 3) -> Network:
    """Positive random weights, about a mean over what a filter sees, and pixels as they are: no effect cancels another."""
    for parameter in module.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
        if parameter.ndim > 1:
            parameter.data /= parameter[0].numel()
    mean, std, preprocess = [0.0] * channels, [1.0] * channels, Preprocess(size, min(size))
    return Network(module.eval(), name="n", labels=None, preprocess=preprocess, mean=mean, std=std).double()


def noticed(net: Network, layer: str = END) -> Tensor:
    """`[H, W, *shape of the layer]`: whether a neuron's value changes with a pixel."""
    height, width = net.input_size
    images = torch.rand(3, height, width, dtype=torch.float64).repeat(height * width + 1, 1, 1, 1)
    for place in range(height * width):
        images[place, :, place // width, place % width] += 1e9  # the largest in any pooling's window
    values: list[Tensor] = []
    keep = net.module.get_submodule(layer).register_forward_hook(lambda _m, _i, out: values.append(out.clone()))
    with torch.no_grad():
        net(images)
    keep.remove()
    changes = (values[-1][:-1] - values[-1][-1]).abs() / values[-1][-1].abs().clamp(min=1e-3)
    return (changes > 1e-6).unflatten(0, (height, width))


def boxes(support: Tensor) -> Tensor:
    """The smallest boxes around what `[H, W, *shape]` marks, `[*shape, 4]`; the whole where that is nothing."""
    ends = []
    for axis in (0, 1):
        marked = support.any(1 - axis).long()
        ends.append((marked.argmax(0), len(marked) - marked.flip(0).argmax(0)))
    (top, bottom), (left, right) = ends
    return torch.stack([top, left, bottom, right], -1).to(torch.int16)


def differences(found: Tensor, wanted: Tensor) -> list[str]:
    """The first boxes that are not as they should be."""
    assert found.dtype == torch.int16
    assert found.shape == wanted.shape
    wrong = (found != wanted).any(-1).nonzero()[:5].tolist()
    return [f"{place}: {found[tuple(place)].tolist()}, not {wanted[tuple(place)].tolist()}" for place in wrong]


# -- networks -----------------------------------------------------------------------------------------------------


def on_a_canvas(_m: Any, x: Tensor) -> Tensor:
    canvas = x.new_zeros(len(x), 5, 16, 20)
    canvas[:, :4, 1:-1, 2:] = x
    canvas[:, 2, ::2] = 0
    canvas[:, 1, 3:6] += x[:, 3, 3:6, :1]
    canvas[:, 4, :2, :2] = canvas[:, 3, 5:7, 5:7]
    return canvas


def written(value: Callable[[Tensor], Tensor | float]) -> Net:
    """Something computed from a part of the image is written into another part."""

    def run(_m: Any, x: Tensor) -> Tensor:
        x = x.clone()
        for image in x:
            image[0, 2:5] = value(image[2:, 4:6, 6:9])
        return x

    return halves(run)


def in_place(m: Any, x: Tensor) -> Tensor:
    m.relu(x)
    x[:, ::2].add_(x[:, 1::2].roll(2, 3))
    x.mul_(2).clamp_(0, 1e12)
    return torch.add(x, m.conv(x), out=torch.empty_like(x))


def shuffled(x: Tensor) -> Tensor:
    count, channels, *sides = x.shape
    return x.view(count, 2, channels // 2, *sides).transpose(1, 2).reshape(count, channels, *sides)


def tiles(x: Tensor) -> Tensor:
    """Means of tiles of 2 x 3, cut as transformers cut pictures."""
    return x.unflatten(3, (6, 3)).unflatten(2, (7, 2)).permute(0, 2, 4, 3, 5, 1).flatten(1, 2).mean((2, 3))


def chosen_rows(_m: Any, x: Tensor) -> Tensor:
    return x[:, [3, 0, 0]][..., torch.tensor([7, 2, 11]), :].index_select(3, torch.tensor([4, 1]))


def with_integers(_m: Any, x: Tensor) -> Tensor:
    return torch.cat([x, torch.arange(14)[:, None].expand(len(x), 1, 14, 18)], 1)


def largest_of_rows(_m: Any, x: Tensor) -> Tensor:
    return x.amax(-1) + x.max(3).values + x.sum(3, keepdim=True).squeeze(3)


def u_shaped(m: Any, x: Tensor) -> Tensor:
    return m.conv(torch.cat([x, F.interpolate(F.max_pool2d(x, 2), scale_factor=2)], 1))


def each(run: Callable[[Tensor], Tensor]) -> Net:
    """Each image by itself, `run` on `[4, 14, 18]`."""
    return halves(lambda _, x: torch.stack([run(image) for image in x]))


NETS: dict[str, Callable[[], Net]] = {
    # convolutions
    "strided": lambda: Net(lambda m, x: m.b(m.a(x)), a=conv(3, 4, 3, stride=2, padding=1), b=conv(4, 4, 2, stride=3)),
    "oblong": lambda: Net(lambda m, x: m.b(m.a(x)), a=conv(3, 2, (1, 5), stride=(1, 2), padding=(0, 3)),
                          b=conv(2, 2, (4, 1), stride=(3, 1))),
    "dilated": lambda: Net(lambda m, x: m.b(m.a(x)), a=conv(3, 2, 3, dilation=(2, 3), padding=2),
                           b=conv(2, 2, 2, dilation=5)),
    "same padding": lambda: Net(lambda m, x: m.b(m.a(x)), a=conv(3, 2, (5, 3), padding="same"),
                                b=conv(2, 2, (2, 4), padding="same", dilation=2)),
    "groups": lambda: halves(lambda m, x: m.conv(x), conv=conv(4, 6, 3, groups=2, padding=1)),
    "depthwise": lambda: halves(lambda m, x: m.conv(x), conv=conv(4, 8, 3, groups=4, stride=2)),
    "reflected": lambda: halves(lambda m, x: m.conv(x), conv=conv(4, 2, 5, padding=3, padding_mode="reflect")),
    "replicated": lambda: halves(lambda m, x: m.conv(x), conv=conv(4, 2, 5, padding=3, padding_mode="replicate")),
    "circular": lambda: halves(lambda m, x: m.conv(x), conv=conv(4, 2, 3, padding=(2, 1), padding_mode="circular")),
    "windows in the padding": lambda: Net(lambda m, x: m.a(x), a=conv(3, 2, 2, padding=3, stride=2)),
    "batch norm": lambda: halves(lambda m, x: m.norm(m.conv(x)), conv=conv(4, 4, 3), norm=nn.BatchNorm2d(4)),
    # poolings
    "max pooling": lambda: halves(lambda _, x: F.max_pool2d(x, 3, 2, 1)),
    "max pooling, ceil": lambda: halves(lambda _, x: F.max_pool2d(x[..., :-1], (3, 2), (3, 2), ceil_mode=True)),
    "max pooling, dilated": lambda: halves(lambda _, x: F.max_pool2d(x, 2, 1, 1, dilation=(3, 4))),
    "max pooling of a line": lambda: halves(lambda _, x: F.max_pool1d(x.flatten(2), 5, 3)),
    "mean pooling": lambda: halves(lambda _, x: F.avg_pool2d(x, (3, 2))),
    "mean pooling, padded": lambda: halves(lambda _, x: F.avg_pool2d(x, 4, 3, 2, True, False)),
    "adaptive mean": lambda: halves(lambda _, x: F.adaptive_avg_pool2d(x, (3, 5))),
    "adaptive maximum": lambda: halves(lambda _, x: F.adaptive_max_pool2d(x, (5, 4))),
    "adaptive, onto more": lambda: halves(lambda _, x: F.adaptive_avg_pool2d(x[..., ::5, ::5], (4, 7))),
    "power pooling": lambda: halves(lambda _, x: F.lp_pool2d(x, 2.0, 3, 2)),
    "tiles": lambda: halves(lambda _, x: tiles(x)),
    # ways through
    "residual": lambda: Net(lambda m, x: F.relu(m.b(F.relu(m.a(x))) + m.short(x)),
                            a=conv(3, 4, 3, stride=2, padding=1), b=conv(4, 4, 3, padding=1),
                            short=conv(3, 4, 1, stride=2)),
    "concatenated": lambda: Net(lambda m, x: torch.cat([m.a(x), m.c(m.b(x)), m.d(F.max_pool2d(x, 3, 1, 1))], 1),
                                a=conv(3, 2, 1), b=conv(3, 2, 3, padding=1),
                                c=conv(2, 3, (5, 3), padding=(2, 1)), d=conv(3, 1, 1)),
    "concatenated with a constant": lambda: halves(lambda m, x: torch.cat([x, m.w(x)], 1), w=Fixed(1, 14, 18)),
    "concatenated with integers": lambda: halves(with_integers),
    "concatenated with nothing": lambda: halves(lambda _, x: torch.cat([x[:, :0].softmax(1), x.new_zeros(0), x], 1)),
    "concatenated sideways": lambda: halves(lambda _, x: torch.cat([x[:, :2], x[:, 2:], x.flip(2)[:, :2]], 3)),
    "stacked": lambda: halves(lambda _, x: torch.stack([x, x.roll((1, 3), (2, 3))], 2).flatten(1, 2)),
    "channels shuffled": lambda: halves(lambda m, x: m.b(m.s(m.a(x))), a=conv(4, 8, 3, groups=4),
                                        s=nn.ChannelShuffle(2), b=conv(8, 4, 3, groups=4)),
    "channels shuffled by hand": lambda: halves(lambda m, x: m.b(shuffled(x)), b=conv(4, 4, 3, groups=2)),
    "channels split": lambda: halves(lambda m, x: torch.cat([x.chunk(2, 1)[0], m.b(x.chunk(2, 1)[1])], 1),
                                     b=conv(2, 2, 3, padding=1)),
    "up again": lambda: halves(u_shaped, conv=conv(8, 4, 3, groups=2)),
    "pixel shuffle": lambda: halves(lambda _, x: F.pixel_shuffle(x.roll(3, 2), 2)),
    "pixel unshuffle": lambda: halves(lambda _, x: F.pixel_unshuffle(x, 2)),
    "repeated": lambda: halves(lambda _, x: x.repeat(1, 1, 1, 2).repeat_interleave(2, 1)),
    "squeeze and excite": lambda: halves(lambda m, x: x * m.up(F.relu(m.down(x.mean((2, 3), keepdim=True)))).sigmoid(),
                                         down=conv(4, 2, 1), up=conv(2, 4, 1)),
    "excited by a part": lambda: halves(lambda _, x: x[:, :2] * x[:, 2:, 3:5].mean((2, 3), keepdim=True).sigmoid()),
    "whichever is larger": lambda: halves(lambda _, x: torch.where(x.roll(5, 3) > 2, x + 1, x[:, 3:] * 2)),
    # writing
    "in place": lambda: halves(in_place, relu=nn.ReLU(inplace=True), conv=conv(4, 4, 3, padding=1)),
    "on a canvas": lambda: halves(on_a_canvas),
    "a number written": lambda: written(lambda x: x.mean()),
    "a row written": lambda: written(lambda x: x.mean((0, 1)).repeat(6)),
    "a constant written": lambda: written(lambda x: 7.0),
    "filled with a constant": lambda: halves(lambda _, x: x[:, :1] + torch.clone(x).fill_(0.5)),
    "cropped and padded": lambda: halves(lambda _, x: F.pad(x, (-2, 3, 1, -4))),
    "padded with a number": lambda: halves(lambda _, x: F.pad(x, (2, 0, 0, 1), value=0.5)),
    # rearranging
    "flipped": lambda: halves(lambda _, x: x.flip(3).transpose(2, 3)),
    "chosen rows": lambda: halves(chosen_rows),
    "chosen by a mask": lambda: halves(lambda _, x: x[:, :, torch.arange(14) % 3 == 0]),
    "steps": lambda: halves(lambda _, x: x[:, 1:, 1::3, ::4]),
    # sums
    "mean over rows": lambda: halves(lambda _, x: x.mean(2)),
    "largest of rows": lambda: halves(largest_of_rows),
    "centred": lambda: halves(lambda _, x: x - x.mean((1, 3), keepdim=True) + x.var(1, keepdim=True)),
    "layer norm": lambda: halves(lambda m, x: m.norm(x.movedim(1, 3)).movedim(3, 1), norm=nn.LayerNorm(4)),
    "global mean": lambda: halves(lambda _, x: x.mean((2, 3))),
    "mean of a part": lambda: halves(lambda _, x: x[:, :, 3:5, 4:9].mean((2, 3))),
    "sums of one number": lambda: each(lambda x: x[:, 3, 4].sum().sum(0)[None]),
    "flattened": lambda: halves(lambda m, x: m.fc(x[..., 2:4, 5:7].flatten(1)), fc=nn.Linear(16, 5)),
    "tokens": lambda: halves(lambda m, x: m.fc(x.flatten(2).transpose(1, 2)), fc=nn.Linear(4, 3)),
    "rows as tokens": lambda: halves(lambda m, x: m.fc(x), fc=nn.Linear(18, 2)),
    "matrices": lambda: halves(lambda m, x: torch.bmm(x.flatten(1, 2), m.w(x)), w=Fixed(18, 2)),
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_the_boxes_are_those_around_the_pixels_that_a_neuron_notices(name: str) -> None:
    net = network(NETS[name]())
    assert not differences(receptive_fields(net, END), boxes(noticed(net)))


def random_stack(choose: random.Random) -> nn.Sequential:
    """Up to four convolutions and poolings."""
    layers, channels = [], 3
    for _ in range(choose.randint(1, 4)):
        kernel, stride = choose.choice([1, 2, 3, (1, 3), (3, 2), 5]), choose.choice([1, 1, 2, (2, 1), 3])
        small = min(kernel if isinstance(kernel, tuple) else (kernel,)) // 2
        padding = choose.randint(0, small)
        if choose.random() < 0.6:
            groups = choose.choice([g for g in (1, 2, 3, 4) if channels % g == 0])
            filters, dilation = groups * choose.choice([1, 2]), choose.choice([1, 1, 2])
            layers.append(
                conv(channels, filters, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups)
            )
            channels = filters
        elif choose.random() < 0.5:
            layers.append(nn.MaxPool2d(kernel, stride, padding, ceil_mode=choose.random() < 0.5))
        else:
            layers.append(nn.AvgPool2d(kernel, stride, padding, ceil_mode=choose.random() < 0.5))
    return nn.Sequential(*layers)


def test_random_stacks_of_convolutions_and_poolings() -> None:
    choose, done = random.Random(0), 0
    while done < 60:
        module = random_stack(choose)
        size = choose.choice([(12, 13), (15, 12), (16, 16)])
        try:
            module(torch.zeros(1, 3, *size))
        except RuntimeError:  # nothing is left
            continue
        net, done = network(module, size), done + 1
        last = str(len(module) - 1)
        assert not differences(receptive_fields(net, last), boxes(noticed(net, last))), module


# -- operations that have no rule of their own ---------------------------------------------------------------------


def added_to_a_list(x: Tensor) -> Tensor:
    x = x.clone()
    torch._foreach_add_([x], [x.roll(2, 2)])  # type: ignore[reportPrivateImportUsage]  # returns nothing
    return x


def written_into_complex(x: Tensor) -> Tensor:
    pairs = torch.complex(x, torch.zeros_like(x))
    torch.view_as_real(pairs)[..., 1] = x.roll(3, 2)
    return pairs.abs()


def written_by_indices(x: Tensor) -> Tensor:
    x = x.clone()
    x[torch.arange(2)[:, None], torch.arange(9, 14)] = x[2:, 3:5].mean()
    return x


def normalised_by_itself(x: Tensor) -> Tensor:
    """With weights from elsewhere in the image, as many as the part is wide."""
    zero, one = torch.zeros(4).to(x), torch.ones(4).to(x)
    return F.batch_norm(x[None, :, :4, :4], zero, one, x[:, 9, 9])[0]


OTHERS: dict[str, Callable[[], Net]] = {
    "transposed": lambda: halves(lambda m, x: m.up(x), up=nn.ConvTranspose2d(4, 2, 2, 2)),
    "bilinear": lambda: halves(lambda _, x: F.interpolate(x[:, :, 2:4, 5:9], scale_factor=2.0, mode="bilinear")),
    "softmax": lambda: halves(lambda _, x: (x[:, 1:, 2:3] * 1e-9).softmax(3)),
    "sorted": lambda: halves(lambda _, x: x.sort(3).values),
    "response norm": lambda: halves(lambda _, x: F.local_response_norm(x, 2)),
    "group norm": lambda: halves(lambda m, x: m.norm(x[:, 2:, 3:9]), norm=nn.GroupNorm(1, 2)),
    "its own filters": lambda: each(lambda x: F.conv2d(x[None, :2, 4:9], x[None, 2:, 2:4, 3:5])[0]),
    "its own weights": lambda: each(normalised_by_itself),
    "its own layer norm": lambda: each(lambda x: F.layer_norm(x[:, :4, :4], (4,), x[0, 9, 9:13])),
    "its own matrix": lambda: each(lambda x: x[2, :6, 1:4] @ x[3, 6:9, 11:13]),
    "constants times it": lambda: halves(lambda m, x: m.w(x) @ x[:, 0], w=Fixed(3, 14)),
    "its own indices": lambda: each(lambda x: x[:1, :2][:, (x[0, 9, 4:6] > 1e8).long()]),
    "written by indices": lambda: each(written_by_indices),
    "written into complex numbers": lambda: each(written_into_complex),
    "a list written to": lambda: each(added_to_a_list),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_known_gives_boxes_around_all_that_went_in(name: str) -> None:
    net = network(OTHERS[name]())
    support = noticed(net)
    all_of_it = boxes(support.flatten(2).any(-1))
    assert not differences(receptive_fields(net, END), all_of_it.expand(*support.shape[2:], 4))


def test_what_is_computed_elsewhere_may_see_the_whole_picture() -> None:
    net = network(halves(lambda _, x: torch.from_numpy(x.detach().numpy() * 2)))
    assert (receptive_fields(net, END) == torch.tensor([0, 0, 14, 18])).all()


# -- the layers of a network ---------------------------------------------------------------------------------------


def test_each_call_of_a_module_has_its_own_fields() -> None:
    net = network(Net(lambda m, x: m.conv(m.conv(m.conv(x))), conv=conv(3, 3, 3, padding=1)))
    for name, reach in (("conv#1", 1), ("conv#2", 2), ("conv#3", 3), ("conv", 3)):
        assert receptive_fields(net, name)[0, 5, 8].tolist() == [5 - reach, 8 - reach, 6 + reach, 9 + reach]


def test_a_layer_that_is_overwritten_later_has_its_own_fields() -> None:
    net = network(halves(lambda m, x: m.b(m.a(x).mul_(x.mean())), a=conv(4, 2, 1), b=conv(2, 2, 3)))
    assert (receptive_fields(net, "a")[:, 6, 7] == torch.tensor([5, 5, 8, 10])).all()
    assert (receptive_fields(net, END) == torch.tensor([0, 0, 14, 18])).all()


def test_a_grey_network_sees_the_same_pixels() -> None:
    net = network(nn.Sequential(conv(1, 2, 3, stride=2, padding=1), conv(2, 2, 3)), channels=1)
    assert not differences(receptive_fields(net, "1"), boxes(noticed(net, "1")))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", ["concatenated with a constant", "padded with a number", "residual", "on a canvas"])
def test_the_fields_are_the_same_in_any_precision(name: str, dtype: torch.dtype) -> None:
    net = network(NETS[name]())
    wanted = receptive_fields(net, END)
    assert not differences(receptive_fields(net.to(dtype), END), wanted)


def test_nothing_is_left_behind() -> None:
    net = network(halves(lambda m, x: m.norm(m.conv(x)), conv=conv(4, 4, 3), norm=nn.BatchNorm2d(4)))
    wanted, before = receptive_fields(net, "norm"), copy.deepcopy(net.module.state_dict())
    net.module.train()
    with torch.inference_mode():
        assert torch.equal(receptive_fields(net, "norm"), wanted)
        assert torch.equal(receptive_fields(copy.deepcopy(net), "norm"), wanted)
    assert all(torch.equal(value, before[name]) for name, value in net.module.state_dict().items())
    assert all(module.training and not module._forward_hooks for module in net.module.modules())


def test_no_such_layer(squeezenet: Network) -> None:
    with pytest.raises(LayerError, match=r"has no layer 'features\.99'"):
        receptive_fields(squeezenet, "features.99")


@pytest.mark.parametrize(
    ("layer", "channel", "place", "box"),
    [
        ("features.0", 0, 0, (0, 3)), ("features.0", 63, 7, (14, 17)), ("features.0", 5, 110, (220, 223)),
        ("features.2", 9, 0, (0, 7)), ("features.2", 9, 20, (80, 87)), ("features.2", 9, 54, (216, 223)),
        # fire modules: the first half of their channels are 1 x 1, the second 3 x 3 and padded
        ("fire2", 63, 20, (80, 87)), ("fire2", 64, 20, (76, 91)), ("fire2", 64, 0, (0, 11)),
        ("fire2", 127, 54, (212, 223)),  # in the padding there is nothing to see, pixel 223 neither
        ("features.4.squeeze", 3, 20, (76, 91)), ("fire3", 0, 20, (76, 91)), ("fire3", 127, 20, (72, 95)),
        ("features.5", 0, 10, (76, 99)), ("features.5", 127, 10, (72, 103)),
        ("fire5", 127, 10, (64, 111)), ("fire5", 128, 10, (56, 119)), ("features.8", 255, 6, (72, 151)),
        ("fire9", 511, 6, (8, 215)), ("conv10", 999, 6, (8, 215)), ("conv10", 0, 0, (0, 119)),
        ("conv10", 0, 12, (104, 223)), ("classifier.3", 0, 0, (0, 223)),
    ],
)  # fmt: skip
def test_squeezenets_fields_worked_out_by_hand(
    squeezenet: Network, layer: str, channel: int, place: int, box: tuple[int, int]
) -> None:
    found = receptive_fields(squeezenet, layer)
    assert found.shape == (*squeezenet.layer(layer).shape, 4)
    start, end = box
    assert found[channel, place, place].tolist() == [start, start, end, end]


def test_efficientnets_fields_hold_the_gradient_of_a_neuron_exactly(efficientnet: Network) -> None:
    """With positive weights and without its ReLUs. Its padding differs from side to side."""
    layer, module = "blocks.3.1", copy.deepcopy(efficientnet.module).double().eval()
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.ReLU6):
                setattr(parent, name, nn.Identity())
            elif isinstance(child, nn.BatchNorm2d):
                child.reset_running_stats()
                child.reset_parameters()
    for parameter in module.parameters():
        parameter.data.abs_()
    values: list[Any] = []
    module.get_submodule(layer).register_forward_hook(lambda _m, _i, out: values.append(out))
    image = torch.rand(1, 3, 224, 224, dtype=torch.float64).requires_grad_()
    module(image)
    found = receptive_fields(efficientnet, layer)
    for place in ((7, 7), (0, 3), (13, 13)):
        (gradient,) = torch.autograd.grad(values[0][0, :, place[0], place[1]].sum(), image, retain_graph=True)
        wanted = boxes((gradient[0] != 0).any(0))
        assert (found[:, place[0], place[1]] == wanted).all(), f"{place}: {wanted.tolist()}"
