"""PyTorch's attention, for pytorch.mjs: one request in JSON a line of stdin, one answer a line of stdout."""

import gc
import json
import sys
import time

import torch
from torch.nn.functional import scaled_dot_product_attention as attention


def tensor(file, dtype, *shape):
    size = torch.Size(shape).numel()
    return torch.from_file(file, size=size, dtype=getattr(torch, dtype)).clone().view(shape)


class Prefill:
    """The whole prompt, causal; the files hold [length, heads, headDim], as projections leave them."""

    def __init__(self, files, route, dtype, shape, context):
        d = shape["headDim"]
        heads = (shape["numHeads"], shape["numKvHeads"], shape["numKvHeads"])
        self.q, self.k, self.v = (
            tensor(file, dtype, 1, context, n, d).transpose(1, 2) for file, n in zip(files, heads)
        )
        self.groups = route == "enable_gqa"
        if not self.groups:
            self.k, self.v = (
                x.repeat_interleave(heads[0] // heads[1], dim=1) for x in (self.k, self.v)
            )

    def run(self):
        return attention(self.q, self.k, self.v, is_causal=True, enable_gqa=self.groups)


class Decode:
    """One query; the files hold [numKvHeads, context, headDim], and a run writes the newest row of each head."""

    def __init__(self, files, route, dtype, shape, context):
        heads, kv_heads, d = shape["numHeads"], shape["numKvHeads"], shape["headDim"]
        self.q = tensor(files[0], dtype, 1, heads, 1, d)
        self.k, self.v = (tensor(file, dtype, 1, kv_heads, context, d) for file in files[1:])
        self.new_k, self.new_v = (x[:, :, -1:].clone() for x in (self.k, self.v))
        self.groups = route == "enable_gqa"
        self.folded = (1, kv_heads, heads // kv_heads, d)

    def run(self):
        self.k[:, :, -1:] = self.new_k
        self.v[:, :, -1:] = self.new_v
        if self.groups:
            return attention(self.q, self.k, self.v, enable_gqa=True)
        return attention(self.q.view(self.folded), self.k, self.v).view(self.q.shape)


class Server:
    def __init__(self):
        self.systems = []
        self.out = None

    def version(self):
        return torch.__version__

    def prepare(self, phase, files, route, dtype, shape, context):
        kind = Prefill if phase == "prefill" else Decode
        self.systems.append(kind(files, route, dtype, shape, context))
        return len(self.systems) - 1

    def run(self, system, threads):
        """Seconds."""
        torch.set_num_threads(threads)
        self.out = None
        start = time.perf_counter()
        self.out = self.systems[system].run()
        return time.perf_counter() - start

    def write(self, file):
        """The last result, [heads, length, headDim]."""
        size = self.out.numel()
        torch.from_file(file, shared=True, size=size, dtype=self.out.dtype).copy_(self.out.reshape(-1))

    def dispose(self, system):
        self.systems[system] = None
        self.out = None
        gc.collect()


def main():
    server = Server()
    gc.disable()
    with torch.inference_mode():
        for line in sys.stdin:
            name, *arguments = json.loads(line)
            try:
                answer = {"value": getattr(server, name)(*arguments)}
            except Exception as error:  # whatever this PyTorch cannot do is told, and the others go on
                answer = {"error": str(error)}
            print(json.dumps(answer), flush=True)


main()
