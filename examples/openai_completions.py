# %% [markdown]
# # Baseball or hockey: prompts and completions through OpenAI's API
#
# Posts of two newsgroups are reviewed, uploaded and fine-tuned on; the result file says how well the
# classifier learnt, and its log probabilities how sure it is. Every call is that of the `openai` SDK; only
# `base_url` says that the server is your own.
#
# Open this file as a notebook in VS Code or Jupyter, or run it from top to bottom:
# `python examples/openai_completions.py`

# %%
import csv
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
from openai import OpenAI
from sklearn.metrics import accuracy_score, f1_score

BASE_URL = os.environ.get("BASE_URL", "http://127.0.0.1:3000/openai/v1")
# A folder with sport2.jsonl (1,197 posts) and test.jsonl (796 later ones), each row with a prompt and its
# completion, baseball or hockey. They are public: sklearn.datasets.fetch_20newsgroups with the categories
# rec.sport.baseball and rec.sport.hockey, its subset "train" (shuffled with random_state=42) and its subset
# "test".
DATA = Path(os.environ.get("DATA", "data/sport"))
ROWS = int(os.environ.get("ROWS", "0")) or None  # of each file, for a quick look
WORK = Path(os.environ.get("WORK", "runs/examples/openai_completions"))  # what this notebook writes
WORK.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## The only change
#
# The hosted notebook had `OpenAI(api_key="YOUR API KEY")` here. Any key will do, unless the server asks for
# one of its own.

# %%
client = OpenAI(api_key=os.environ.get("OPENAI_API_KEY", "any key"), base_url=BASE_URL)

# %% [markdown]
# ## Step 1: look at the data

# %%
with (DATA / "sport2.jsonl").open(encoding="utf-8") as file:
    posts = [json.loads(line) for line in file][:ROWS]
print(posts[0]["prompt"])
print(f"{len(posts)} posts, {sum(post['completion'] == 'hockey' for post in posts)} of them on hockey")
with (WORK / "sport2.jsonl").open("w", encoding="utf-8") as file:
    file.writelines(json.dumps(post) + "\n" for post in posts)

# %% [markdown]
# ## Step 2: review
#
# `openai tools fine_tunes.prepare_data -f sport2.jsonl -q` stood here, a command the SDK has no longer. This
# one does the same: it removes what cannot be learnt from, ends every prompt with a separator, and splits the
# file in two.

# %%
for old in WORK.glob("sport2_prepared_*.jsonl"):  # of an earlier run; files that exist are never written over
    old.unlink()
subprocess.run([sys.executable, "-m", "training.review", str(WORK / "sport2.jsonl"), "--yes"], check=True)

# %% [markdown]
# ## Step 3: fine-tune
#
# The files are uploaded, a job is created, and its events tell how far it is.

# %%
train_file = client.files.create(file=(WORK / "sport2_prepared_train.jsonl").open("rb"), purpose="fine-tune")
valid_file = client.files.create(file=(WORK / "sport2_prepared_valid.jsonl").open("rb"), purpose="fine-tune")
job = client.fine_tuning.jobs.create(
    training_file=train_file.id, validation_file=valid_file.id, model="babbage-002", seed=1
)
while job.status not in ("succeeded", "failed", "cancelled"):
    time.sleep(3)
    job = client.fine_tuning.jobs.retrieve(job.id)
    newest = client.fine_tuning.jobs.list_events(job.id, limit=1).data[0]
    print(job.status, "|", newest.message)
if job.status != "succeeded":
    raise SystemExit(f"the job {job.status}: {job.error and job.error.message}")
print(job.fine_tuned_model, job.trained_tokens, "tokens", job.hyperparameters)

# %% [markdown]
# ## Step 4: the result file
#
# One line for each step, with the figures of the validation rows where those were measured.

# %%
results = list(csv.DictReader(client.files.content(job.result_files[0]).text.splitlines()))
print(results[-1])

plt.figure()
for column in ("train_accuracy", "classification/accuracy"):
    lines = [line for line in results if line[column]]
    plt.plot([int(line["step"]) for line in lines], [float(line[column]) for line in lines], label=column)
plt.xlabel("step")
plt.legend()
plt.savefig(WORK / "accuracy.png")

# %% [markdown]
# ## Step 5: ask the model
#
# One token answers, as the label is one, and `logprobs` gives the probability of each label. What is asked
# must end with the separator on the hosted API; here it may.

# %%
with (DATA / "test.jsonl").open(encoding="utf-8") as file:
    later = [json.loads(line) for line in file][:ROWS]
answer = client.completions.create(
    model=job.fine_tuned_model, prompt=later[0]["prompt"] + "\n\n###\n\n", max_tokens=1, temperature=0, logprobs=2
)
print(answer.choices[0].text)
for label, logprob in answer.choices[0].logprobs.top_logprobs[0].items():
    print(f"  {math.exp(logprob):6.1%}{label}")

# %% [markdown]
# A post is not all that can be told apart. Neither of these is from a newsgroup:

# %%
texts = [
    "The goalie stopped 38 shots, and the winner came on a power play in overtime.",
    "Bottom of the ninth, two out, and he swings at a curve ball in the dirt.",
]
answer = client.completions.create(model=job.fine_tuned_model, prompt=texts, max_tokens=1)
for choice in answer.choices:
    print(f"{choice.text:10} {texts[choice.index]}")

# %% [markdown]
# ## Step 6: evaluate
#
# First on the validation rows, which gives the accuracy of the result file once more; then on the later
# posts.

# %%
BATCH = 20


def asked(rows):
    """The label the model gives each row."""
    found = []
    for i in range(0, len(rows), BATCH):
        prompts = [row["prompt"] for row in rows[i : i + BATCH]]
        answer = client.completions.create(model=job.fine_tuned_model, prompt=prompts, max_tokens=1, temperature=0)
        found.extend(choice.text.strip() for choice in answer.choices)
    return found


with (WORK / "sport2_prepared_valid.jsonl").open(encoding="utf-8") as file:
    valid = [json.loads(line) for line in file]

figures = {}
for name, rows in (("", valid), (", later posts", later)):
    true, predicted = [row["completion"].strip() for row in rows], asked(rows)
    figures[f"accuracy{name}"] = accuracy_score(true, predicted)
    figures[f"f1_weighted{name}"] = f1_score(true, predicted, average="weighted")
(WORK / "figures.json").write_text(json.dumps(figures))
print(f"accuracy in the result file: {float(results[-1]['classification/accuracy']):.4f}")
for name, value in figures.items():
    print(f"{name}: {value:.4f}")
