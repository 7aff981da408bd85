"""What fine-tuning adds to a head in closed form: labels that are in the recordings for certain, five folds, a fresh simulated cohort.

160 people of 24 parcels, one window each; in each fold a tiny model is pretrained on the training people. LoRA and full fine-tuning begin with the closed form
and run with two learning rates, of which the one with the lower loss on validation people is kept; what they began with is a candidate, too. Errors are
squared, in variances of the label, by person.

    python tools/heads.py [--cores 2]      # what is missing of 20 pieces, about 25 CPU seconds each; then nbs/results/heads.tsv
"""
import argparse
import multiprocessing
import os
import sys
import tempfile
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

for k in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'): os.environ.setdefault(k, '1')

import numpy as np
import pandas as pd
import torch

root = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(root))

from brainlm.atlas import Parcellation, load_parcellation
from brainlm.basics import write_whole
from brainlm.evidence import keep_results, result_rows
from brainlm.finetuning import BlockRidge, finetune_learner, planted_labels
from brainlm.model import BrainLM, BrainLMConfig
from brainlm.pretraining import Training, pretrain_learner
from brainlm.readouts import PersonEmbedding
from brainlm.recordings import Split
from brainlm.simulation import simulate_cohort
from brainlm.stats import correlations, fisher_z, upper, verdicts

seed, n_folds, rates = 20261126, 5, (1e-3, 5e-3)
quiet = Training(progress=False, device='cpu', patience=5)
sizes = dict(width=24, layers=2, heads=2, mlp=48, decoder_width=32, decoder_layers=2, decoder_heads=2, decoder_mlp=64)
start, fresh = 'closed form', 'closed form, encoder not trained'
ways = {start: {}, fresh: {}, 'LoRA': dict(unfreeze='lora'), 'all weights': dict(unfreeze='all'),
        'CLS, all weights': dict(pooling='cls', start='mean', unfreeze='all')}
names = 'one correlation', 'lag 1', 'global SD', 'mean log-SD'

def cohort(folder, n_people):
    "People who are simulated anew"
    table = load_parcellation('glasser360').table
    fewer = Parcellation.from_table(table.iloc[::15].reset_index(drop=True), 'glasser24')
    return simulate_cohort(folder, n_people, fewer, n_time=200, effects=dict(age=1., sex=1., site=.5), seed=seed)

def sides(n, fold):
    "A word for each person: a fifth to test on, an eighth to stop on"
    order, words = np.random.default_rng(seed).permutation(n), np.array(['train']*n)
    words[order[fold::n_folds]] = 'test'
    words[[i for i in order if words[i]=='train'][:n//8]] = 'valid'
    return words

def ridge(F, y, split):
    "What ridge regression on a feature says of the test people"
    z, at = (F-F[split.train].mean(0))/F[split.train].std(0), split.rows('train', 'valid')
    m = BlockRidge([F.shape[1]]).fit(z[at], y[at][:,None], np.arange(len(at)))
    return z[split.test]@m.weight[0]+m.bias

def said_by(store, model, y, split, folder, epochs, **how):
    "What a fine-tuned model says of the test people"
    tried = []
    for lr in rates[:1+bool(epochs)]:
        learn = finetune_learner(store, model, y.astype(float), f'{folder}-{lr}', split, training=quiet, **how)
        if epochs: learn.finetune(epochs, lr)
        tried.append((learn.run_folder.best, lr, learn))
    return min(tried, key=lambda o: o[:2])[-1].model.predict(store, split.test).prediction.to_numpy()

def piece(a, at):
    "What each way says of the test people of a fold"
    fold, label = at
    file = a.work/f'{fold}-{label}.csv'
    if file.exists(): return
    torch.set_num_threads(1)
    warnings.simplefilter('ignore')
    with tempfile.TemporaryDirectory() as tmp:
        store = cohort(f'{tmp}/cohort', a.people)
        split, config = Split.of(store, sides(a.people, fold)), BrainLMConfig(n_parcels=24, **sizes)
        pretrain_learner(store, config, f'{tmp}/begun', split, training=replace(quiet, patience=None)).pretrain(3, lr=5e-3)
        tiny = BrainLM.from_pretrained(f'{tmp}/begun/last')
        torch.manual_seed(fold)
        models = dict.fromkeys(ways, tiny) | {fresh: BrainLM(config, store.parcellation, tiny.scaler)}
        labels, fitting = planted_labels(store, tiny.scaler)
        y, X = labels[label], [store.read(i) for i in range(len(store))]
        said = {w: said_by(store, models[w], y, split, f'{tmp}/{i}', a.epochs*('unfreeze' in how), **how) for i,(w,how) in enumerate(ways.items())}
    said['ridge on the feature that fits'] = ridge(fitting[label], y, split)
    said['FC + ridge'] = ridge(np.stack([upper(o) for o in correlations(X)]), y, split)
    said['whitened + ridge'] = ridge(PersonEmbedding().fit([X[i] for i in split.train]).transform(X), y, split)
    t = pd.DataFrame(said).assign(person=split.test, truth=y[split.test], fold=fold, label=label)
    write_whole(file, t.to_csv(index=False, float_format='%.6g'))
    print(*at, t[list(said)].corrwith(t['truth']).round(3).to_dict(), flush=True)

def compared(pieces):
    "The ways to fine-tune beside the closed form they began with, all labels one family: label → [`Verdict`]"
    less = {}
    for label,t in pieces.items():
        error = t[list(ways)].sub(t['truth'], axis=0)**2/t['truth'].var()
        less |= {(label, k): (error[k]-error[start]).to_numpy() for k,how in ways.items() if 'unfreeze' in how}
    found = verdicts(less, '', 'squared error', lower_is_better=True)
    told = [(v.rival[0], replace(v, mine=v.rival[1], rival=start)) for v in found]
    for label,v in told: print(label, v, sep=': ')
    return {label: [v for o,v in told if o==label] for label in pieces}

def rows_of(t, label, found):
    "Rows of a label: r of each way over all people, and what was found"
    r, n = t.drop(columns=['person', 'truth', 'fold', 'label']).corrwith(t['truth']), len(t)
    low, high = (np.tanh(fisher_z(r, .999999)+k*1.96/(n-3)**.5) for k in (-1, 1))
    values = pd.DataFrame(dict(value=r, low=low, high=high, n=n))
    facts = dict(task=f'planted label: {label}', data='simulated cohort, 24 parcels, five folds', metric='r', kind='simulated')
    return result_rows(values, found, [start, *(v.mine for v in found)], [fresh], **facts)

def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--cores', type=int, default=1, help='processes')
    p.add_argument('--people', type=int, default=160)
    p.add_argument('--epochs', type=int, default=8, help='of fine-tuning, at most')
    p.add_argument('--labels', nargs='+', choices=names, default=names, help='only these')
    p.add_argument('--work', type=Path, default=root/'runs'/'heads', help='where the pieces are kept')
    p.add_argument('--out', type=Path, default=root/'nbs'/'results'/'heads.tsv', help='the table of results')
    a = p.parse_args(argv)
    a.work.mkdir(parents=True, exist_ok=True)
    todo = [(k, label) for label in a.labels for k in range(n_folds)]
    if a.cores==1:
        for o in todo: piece(a, o)
    else:
        with multiprocessing.get_context('spawn').Pool(a.cores) as pool: pool.map(partial(piece, a), todo, chunksize=1)
    pieces = {o: pd.concat([pd.read_csv(a.work/f'{k}-{o}.csv') for k in range(n_folds)]) for o in a.labels}
    found = compared(pieces)
    keep_results(a.out, pd.concat([rows_of(t, o, found[o]) for o,t in pieces.items()]), 'python tools/heads.py')

if __name__=='__main__': main()
