"""Ask a running studio for pictures, and save them.

    instancediffusion studio &
    python examples/studio_client.py http://127.0.0.1:7860/ examples/demo.json pictures

Everything the page does can be called like this. `pip install gradio_client` is all it needs.
"""

import os
import sys
import urllib.request
import uuid
from pathlib import Path

from gradio_client import Client

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # or the client would tell its makers that it runs


def main(url: str, scene_file: str, folder: str) -> None:
    """Check a scene, make two pictures of it while telling how far they are, and save them."""
    client = Client(url, verbose=False, analytics_enabled=False)
    scene = Path(scene_file).read_text()

    checked = client.predict(scene, None, api_name="/check")
    for problem in checked["problems"]:
        print(f"{problem['severity']}: {problem['path']}: {problem['message']}")
    if not checked["ok"]:
        sys.exit(2)

    options = {
        "preset": "default",
        "settings": {"num_inference_steps": int(os.environ.get("STUDIO_STEPS", "25"))},
        "seed": 0,
        "pictures": 2,
    }
    session = uuid.uuid4().hex  # a name for this program; its jobs are listed under it
    state = {}
    for state in client.submit(scene, options, session, api_name="/generate"):
        if state["state"] == "running" and "step" in state:
            print(f"step {state['step']} of {state['steps']}, {state['share']:.0%}")
    if state["state"] != "done":
        sys.exit(f"{state['state']}: {state['error']}")

    result = client.predict(state["result"], api_name="/result")
    Path(folder).mkdir(parents=True, exist_ok=True)
    for picture in result["pictures"]:
        target = Path(folder) / picture["file"]
        with urllib.request.urlopen(url.rstrip("/") + picture["url"]) as answer:
            target.write_bytes(answer.read())
        print(target)
    client.close()


if __name__ == "__main__":
    main(*sys.argv[1:4])
