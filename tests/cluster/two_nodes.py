"""A Ray cluster of two nodes with room for one task each; a line on stdin loses the second."""

from __future__ import annotations

import sys

from ray.cluster_utils import Cluster


def main() -> None:
    room = {"num_cpus": 1, "num_gpus": 1}
    cluster = Cluster(initialize_head=True, head_node_args=room)
    try:
        node = cluster.add_node(**room)
        cluster.wait_for_nodes()
        print(cluster.address, flush=True)
        sys.stdin.readline()
        cluster.remove_node(node, allow_graceful=False)
        print("lost", flush=True)
        sys.stdin.read()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
