#!/usr/bin/env bats
# What the two training scripts train on and evaluate with, and what prepare is told of it. All with fakes.
# shellcheck disable=SC2154  # output, stderr, status and words are set by run and by torchrun_words

bats_require_minimum_version 1.5.0
load helpers/kit.bash

setup() { make_kit; }

# ---- the rows ---------------------------------------------------------------------------------------------------------

@test "the default data are the four example folders, and eval/ beside them" {
  gpus 1
  run --separate-stderr "$SINGLE" --dry-run
  torchrun_words
  prepared=$KIT/outputs/test_encoder_only_m3_bge-m3_single_gpu/prepared
  [[ " ${words[*]} " == *" --train_data $prepared/retrieval $prepared/sts $prepared/classification-no_in_batch_neg $prepared/clustering-no_in_batch_neg --"* ]]
  [[ $stderr == *"with $KIT/example_data/eval, which lies beside"* ]]
  command_words 'm3kit evaluate '
  expect eval_data "$KIT/example_data/eval"
  command_words 'm3kit prepare '
  data=("$KIT"/example_data/{retrieval,sts,classification-no_in_batch_neg,clustering-no_in_batch_neg})
  wanted=(-m m3kit prepare --train_data "${data[@]}" --output_dir "$prepared" --train_group_size 8 --seed 42
    --eval_data "$KIT/example_data/eval" --tokenizer BAAI/bge-m3 --query_max_len 512 --passage_max_len 512 --batch_size 2)
  [[ ${words[*]:1} == "${wanted[*]}" ]] || fail "${words[*]}"
}

@test "training data: several arguments, or several in the environment, of any name" {
  gpus 1
  make_rows "data [x]/my retrieval"
  make_rows "data [x]/ärzte's \"sts\""
  make_rows "data [x]/classification"
  run --separate-stderr "$SINGLE" --dry-run --train_data "data [x]/my retrieval" "data [x]/ärzte's \"sts\"" --output_dir 'out [1]' --seed 5
  torchrun_words
  [[ " ${words[*]} " == *" --train_data out [1]/prepared/my retrieval out [1]/prepared/ärzte's \"sts\" --model"* ]]
  expect output_dir 'out [1]'
  TRAIN_DATA="data [x]/my retrieval:data [x]/classification" run --separate-stderr "$SINGLE" --dry-run --output_dir=o
  torchrun_words
  [[ " ${words[*]} " == *" --train_data o/prepared/my retrieval o/prepared/classification-no_in_batch_neg --model"* ]]
  # a folder of task folders, and its eval/ in it
  make_eval "data [x]/eval"
  run --separate-stderr "$SINGLE" --dry-run --train_data "data [x]"
  torchrun_words
  [[ ${#words[@]} -gt 10 && " ${words[*]} " == *"prepared/classification-no_in_batch_neg "*"prepared/my retrieval "* ]]
  command_words 'm3kit evaluate '
  expect eval_data 'data [x]/eval'
}

@test "a dry run finds the files that prepare reads, and no others" {
  gpus 1
  for name in a.ndjson b.JSON c.csv.gz d.Tsv.ZST e.parquet; do
    make_rows "data/$name's" "$name"
  done
  make_rows data/mine labels.json rejected.jsonl notes.txt .hidden.jsonl jsonl
  make_rows data/eval
  mkdir -p data/folder/x.csv
  run --separate-stderr "$SINGLE" --dry-run --train_data data --output_dir o
  torchrun_words
  [[ " ${words[*]} " == *" --train_data o/prepared/a.ndjson's o/prepared/b.JSON's o/prepared/c.csv.gz's o/prepared/d.Tsv.ZST's o/prepared/e.parquet's --model"* ]]
  # what is named itself is read whatever its ending, and in whatever folder
  make_rows data/eval/sts rows.txt
  run --separate-stderr "$SINGLE" --dry-run --train_data data/mine/notes.txt data/eval/sts/rows.txt data/mine/labels.json --output_dir o
  torchrun_words
  [[ " ${words[*]} " == *" --train_data o/prepared/mine o/prepared/sts --model"* ]]
  [[ $stderr == *'not read: data/mine/labels.json'* ]]
  # what is not there, and a folder without data, are refused before anything runs
  for path in data/none data/folder; do
    run "$SINGLE" --dry-run --train_data data/mine/notes.txt "$path"
    ((status != 0))
    says "$path"
  done
  # labelled rows in a folder whose name does not say what for
  make_rows data/more
  run --separate-stderr "$SINGLE" --dry-run --train_data data/more data/eval/sts/rows.txt --task clustering --output_dir o
  torchrun_words
  [[ " ${words[*]} " == *" --train_data o/prepared/clustering-no_in_batch_neg o/prepared/sts --model"* ]]
}

# ---- what prepare is told ---------------------------------------------------------------------------------------------

@test "how rows are read, and what is done about bad ones, goes to prepare and not to the trainer" {
  gpus 1
  run --separate-stderr "$SINGLE" --dry-run --columns 'query=my question,positive=answer' --task clustering --sts_max_score=5 --sts_as contrastive \
    --classification-positives both --skip-bad-rows --strict --cache_dir 'a cache' --passage_max_len 99
  ((status == 0))
  command_words 'm3kit prepare '
  expect columns 'query=my question,positive=answer'
  expect task clustering
  expect sts_max_score 5
  expect sts_as contrastive
  expect classification_positives both
  expect skip-bad-rows --strict
  expect cache_dir 'a cache'
  expect passage_max_len 99
  torchrun_words
  for name in columns task sts_max_score sts_as classification_positives skip_bad_rows skip-bad-rows strict holdout; do
    expect_no "$name"
  done
}

@test "the same in the environment; COLUMNS is the terminal's" {
  gpus 2
  DATA_COLUMNS=text=t TASK=classification STS_MAX_SCORE=4 CLASSIFICATION_POSITIVES=texts SKIP_BAD_ROWS=yes STRICT=1 \
    run --separate-stderr "$MULTI" --dry-run
  command_words 'm3kit prepare '
  expect columns text=t
  expect task classification
  expect sts_max_score 4
  expect classification_positives texts
  expect skip-bad-rows --strict
  COLUMNS=80 SKIP_BAD_ROWS=False STRICT=no run --separate-stderr "$MULTI" --dry-run
  command_words 'm3kit prepare '
  for name in columns task sts_max_score sts_as classification_positives skip-bad-rows strict cache_dir; do
    expect_no "$name"
  done
}

@test "STS pairs are prepared for what trains them: graded ones need the kit's loss, and batches of their own" {
  gpus 1
  local words
  for words in '--entrypoint FlagEmbedding.finetune.embedder.encoder_only.m3' '--same_dataset_within_batch False'; do
    # shellcheck disable=SC2086  # two words
    run --separate-stderr "$SINGLE" --dry-run $words
    command_words 'm3kit prepare '
    expect sts_as contrastive
  done
  run "$SINGLE" --dry-run --sts_as both
  ((status == 2))
  says "sts_as is graded or contrastive, not 'both'"
}

@test "prepare knows the batch of all processes" {
  gpus 4
  run --separate-stderr "$MULTI" --dry-run --per_device_train_batch_size 3 --model_name_or_path 'a model'
  command_words 'm3kit prepare '
  expect batch_size 12
  expect tokenizer 'a model'
  run "$MULTI" --dry-run --per_device_train_batch_size 2.5
  ((status == 2))
  says "not '2.5'"
}

# ---- evaluation -------------------------------------------------------------------------------------------------------

@test "without eval/ a share of the queries is kept back and evaluated with" {
  gpus 1
  make_rows retrieval
  run --separate-stderr "$SINGLE" --dry-run --train_data retrieval --output_dir 'my out'
  [[ $stderr == *'Evaluation: with a share of 0.05 of the queries'*'no folder eval/ lies beside'* ]]
  command_words 'm3kit prepare '
  expect holdout 0.05
  expect_no eval_data
  command_words 'm3kit evaluate '
  expect eval_data 'my out/prepared/eval'
  HOLDOUT=.2 run --separate-stderr "$SINGLE" --dry-run --train_data retrieval
  [[ $stderr == *'a share of .2 of'* ]]
  command_words 'm3kit prepare '
  expect holdout .2
}

# bats test_tags=slow
@test "nothing is kept back where that is said" {
  gpus 1
  make_rows retrieval
  for argument in --holdout=0 --holdout=0.00 --eval_data=none; do
    run --separate-stderr "$SINGLE" --dry-run --train_data retrieval "$argument"
    ((status == 0))
    [[ $stderr == *'Evaluation: none'* ]]
    says_not 'm3kit evaluate'
    command_words 'm3kit prepare '
    expect_no holdout
    expect_no eval_data
  done
  for share in 1 5% -0.1 0.x ''; do
    run "$SINGLE" --dry-run --train_data retrieval --holdout "$share"
    ((status == 2))
    says "from 0 to below 1 (0.05), not '$share'"
  done
}

@test "eval/ counts when it has something to evaluate with" {
  gpus 1
  make_rows retrieval
  make_rows eval queries.jsonl test.jsonl
  run --separate-stderr "$SINGLE" --dry-run --train_data retrieval
  command_words 'm3kit prepare '
  expect holdout 0.05
  for file in corpus.jsonl {sts,classification,clustering}/test.jsonl; do
    rm -r eval
    make_rows "eval/$(dirname "$file")" "${file##*/}"
    run --separate-stderr "$SINGLE" --dry-run --train_data retrieval
    [[ $stderr == *'with ./eval, which lies beside'* ]]
    command_words 'm3kit prepare '
    expect eval_data ./eval
    expect_no holdout
    command_words 'm3kit evaluate '
    expect eval_data ./eval
  done
}

@test "an eval_data that is given must have something, and is compared with the rows" {
  gpus 1
  make_rows 'my eval/sts' test.jsonl
  run --separate-stderr "$SINGLE" --dry-run --eval_data 'my eval'
  command_words 'm3kit prepare '
  expect eval_data 'my eval'
  expect_no holdout
  command_words 'm3kit evaluate '
  expect eval_data 'my eval'
  mkdir empty
  for folder in empty nowhere; do
    rm -f "$LOG" # a dry run asks for the memory plan
    run "$SINGLE" --eval_data "$folder"
    ((status == 2))
    says "the folder $folder of eval_data has nothing to evaluate with: none of corpus.jsonl sts/test.jsonl"
    [[ ! -e $LOG ]]
    run "$SINGLE" --dry-run --eval_data "$folder"
    ((status == 2))
    says "the folder $folder of eval_data has nothing to evaluate with"
  done
}

@test "after prepare, what it kept back is evaluated with" {
  gpus 1
  make_rows retrieval
  FAKE_HELD_OUT=classification/test.jsonl run --separate-stderr "$SINGLE" --train_data retrieval --output_dir 'my out'
  ((status == 0))
  logged '--holdout 0.05'
  logged '--models base=BAAI/bge-m3 tuned=my out --eval_data my out/prepared/eval'
  [[ $output == 'the table'*'The model is in my out'*'Next, to use it'* ]]
  [[ $stderr != *'stays unknown'* ]]
}

@test "where prepare could keep nothing back, that is said, and the model is there all the same" {
  gpus 1
  make_rows retrieval
  run --separate-stderr "$SINGLE" --train_data retrieval --output_dir out
  ((status == 0))
  [[ $stderr == *'nothing was held out (the reason is above); whether the model got better stays unknown'* ]]
  [[ $output == *'The model is in out'*'Next, to see whether it got better'*'--eval_data YOUR_EVAL_FOLDER'* ]]
  run grep -c 'm3kit evaluate' "$LOG"
  ((status == 1))
}
