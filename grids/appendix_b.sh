#!/bin/sh
# The published students of appendix B of the smoothed-KD paper, scored by its tasks and metrics. docs/paper.md has the paper's
# figures, and the terms on which they compare. Needs the hub, and for METEOR `python -m nltk.downloader wordnet`.
#     sh grids/appendix_b.sh [--limit 100]
set -e
cd "$(dirname "$0")/.."
metrics='rouge, chrf, meteor, {name: bertscore, model: "hf:FacebookAI/roberta-large"}'

score() { # store, the tasks, what the students learned, their names; then more options
    store=$1 tasks=$2 learned=$3 students=$4
    shift 4
    for student in $students; do
        for how in text_teacher uld_loss; do
            set -- "$@" --model "hf:Nicolas-BZRD/${student}_${learned}_${how}"
        done
    done
    .venv/bin/kdray score "$@" --tasks "$tasks" --metrics "$metrics" --store "$store"
}

score runs/appendix-b-published-qa '{name: hotpotqa, prompt: appendix_b}, {name: truthfulqa, prompt: appendix_b}' \
    pubmed_qa_Llama-2-7b-chat-hf 'bloomz-560m mt0-base opt-350m pythia-1b-deduped' "$@"
score runs/appendix-b-published-summaries \
    '{name: cnn_dailymail, source: "hf:abisee/cnn_dailymail#config=1.0.0&split=validation", prompt: appendix_b, max_new_tokens: 128}' \
    dialogsum_Mistral-7B-Instruct-v0.2 'bloomz-560m mt0-base opt-350m pythia-410m-deduped' "$@"
