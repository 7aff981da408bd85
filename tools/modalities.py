"""One model of BOLD and EEG on simulated cohorts, beside linear rivals: scores of unseen people, and what is said of them.

    python tools/modalities.py --out DIR --seconds 380 --cores 16   # all cohorts, on a card
    python tools/modalities.py --out DIR --size toy                 # the same code at toy size, on the CPU, a minute
    python tools/modalities.py --out DIR --size company             # does BOLD alone suffer from company? on the CPU
    python tools/modalities.py --out DIR --judge nbs/results/modalities.tsv   # tables of several runs into one of results

Each training and each cohort's rivals are a process of their own, which writes DIR/scores_*.csv when it is done. All read
the same people: 48 to learn from, 20 that are tested (toy: 8 and 4; company: 200 are tested).
Models begin on a prior of each stream unless their job says plain. A training with time for less than a quarter of its
steps writes no scores; one that was interrupted goes on."""
import argparse
import json
import math
import os
import subprocess
import sys
import time
from copy import deepcopy
from pathlib import Path

for k in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'): os.environ.setdefault(k, '1')

import numpy as np
import pandas as pd
import torch
from scipy.signal import resample_poly

from brainlm.atlas import Parcellation
from brainlm.crossing import (
    asked,
    coupling_read,
    crossing_verdicts,
    crossings,
    joint_signals,
    joint_streams,
    modal_learner,
    model_scores,
    new_modal,
    person_r2,
    rival_maps,
    rival_scores,
)
from brainlm.electrophysiology import band_envelope
from brainlm.evidence import keep_results, result_rows
from brainlm.joint import Coupling, JointCohort, joint_bands, sensor_places, spread_parcels
from brainlm.modalities import ModalBrainLM, Stream, modal_config, stacked
from brainlm.pretraining import Training
from brainlm.stats import zscored

words = dict(linear='linear coupling', saturating='saturating coupling', gated='gated coupling', none='null',
             product='product of two bands')
first_tested = dict(company=2000, wide=2000) # number of the first person who is tested; 1000 in the other sizes

# People learned from and tested, parcels, patches in a window, network, steps, windows in a step
sizes = dict(toy=(8, 4, 4, 4, 'nano', 6, 4), small=(48, 20, 8, 4, 'nano', 1500, 16), large=(48, 20, 16, 8, 'tiny', 6000, 32),
             company=(48, 200, 8, 4, 'nano', 6000, 16), wide=(48, 40, 16, 4, 'nano', 2500, 16))

def cohort(kind, size):
    "Signals of the people learned from and of those who are tested, names of these, and the cohort"
    train, test, parcels, *_ = sizes[size]
    c = JointCohort(spread_parcels(n=parcels), Coupling(kind), seed=22)
    unseen = c.people(test, first_tested.get(size, 1000))
    return joint_signals(c.people(train)), joint_signals(unseen), [p.subject for p in unseen], c

equal_bold = 'company', 'wide' # A model of BOLD alone takes three quarters of the steps there: as many windows with BOLD

def jobs(size):
    "Names of what is to be done, the most important first; `one`: asked for BOLD from EEG alone"
    if size=='company':
        seeds = [f'{o}:linear:{s}' for o in ('both', 'bold') for s in range(3)]
        return [*seeds, 'bold-plain:linear:0', 'rivals:linear:0']
    if size=='wide':
        first = 'both:linear both:saturating both:gated bold:linear both:none sensors:linear'.split()
        again = 'both:gated:1 both:none:1 sensors:none:0 both:linear:1'.split()
        return [f'{o}:0' for o in first]+again+[f'rivals:{o}:0' for o in ('linear', 'saturating', 'gated', 'none')]
    first = 'both:linear both:gated both:none bold:linear rivals:linear rivals:gated rivals:none'.split()
    then = 'both:product one:product rivals:product both:saturating rivals:saturating'.split()
    again = 'both:linear bold:linear both:gated both:none both:product'.split()
    return [f'{o}:0' for o in first+then]+[f'{o}:1' for o in again]*(size=='large')

named = dict(both='BrainLM', bold='BrainLM of BOLD alone', one='BrainLM of one question')

def steps_for(model, learner, steps, a):
    "As many steps as there is time for; none for less than a quarter"
    fast = learner(deepcopy(model), a.out/'none').estimate(1)['step_s']
    most = int((a.until-time.time()-a.spare)/fast)
    print(f'{fast:.3f} s a step, time for {most} of {steps}', flush=True)
    return min(steps, most)*(most>=steps/4)

sensor_streams = Stream('bold', patch_size=2), Stream('eeg', 'eeg', '', .04, 100) # patches of 4 s

def electrodes(n):
    "Sensors as channels"
    return Parcellation(f'{n} electrodes', pd.DataFrame(dict(
        id=range(1, n+1), name=[f'E{k+1}' for k in range(n)], hemisphere='M', structure='sensor',
        **dict(zip('xyz', sensor_places(n).T, strict=True)))))

def sensor_signals(people, c):
    "EEG of 8 sensors at 25 Hz beside BOLD, and the logarithm of its alpha envelope for the ridge"
    raw = [c.eeg(p, sensor_places(8)) for p in people]
    slow = [zscored(resample_poly(x, 1, 4)).T for x in raw]
    alpha = np.full((len(raw), 8, round(c.seconds)), np.nan)                # missing at the ends
    for out,x in zip(alpha, raw, strict=True):
        found, _, start = band_envelope(x, .01, joint_bands['alpha'], 1.)
        out[:,round(start):round(start)+len(found)] = zscored(np.log(found)).T
    out = dict(bold=joint_signals(people)['bold'], eeg=np.stack(slow), alpha=alpha)
    return {k: torch.as_tensor(x, dtype=torch.float32) for k,x in out.items()}

def sensors(kind, seed, a):
    "BOLD from sensors: a model of nothing else, and a ridge on what is known to carry it"
    train, test, parcels, patches, network, steps, batch = sizes[a.size]
    c = JointCohort(spread_parcels(n=8), Coupling(kind), seed=22)
    unseen = c.people(test, first_tested.get(a.size, 1000))
    signals, tested = sensor_signals(c.people(train), c), sensor_signals(unseen, c)
    channels = dict(bold=c.parcellation, eeg=electrodes(8))
    torch.manual_seed(seed)
    model = ModalBrainLM(modal_config(sensor_streams, channels, 4*patches, network), stacked(channels),
                         streams=sensor_streams)
    def learner(model, folder):
        two = {k: signals[k] for k in channels}
        return modal_learner(model, two, folder, training=Training(batch, seed=seed, progress=False),
                             question='BOLD from sensors')
    learn = learner(model, a.out/f'run_sensors_{kind}_{seed}')
    steps = steps_for(model, learner, a.steps or steps, a)
    if not steps: sys.exit('too few steps')
    log = learn.pretrain(math.ceil(steps/len(learn.dls.train)), 4e-3)
    names, k = [p.subject for p in unseen], 'BOLD from sensors'
    t = model_scores(model, tested, names, 'BrainLM')
    t = t[t['question']==k]
    streams = (sensor_streams[0], Stream('alpha', 'envelope', 'alpha', 1., 4))
    truth, _ = asked(model, tested, crossings[k])
    guess, m = rival_maps(crossings['BOLD from EEG'], signals, tested, streams, 16.*patches, ['ridge'])['ridge']
    rows = [dict(question=k, model='ridge on alpha envelopes', subject=s, r2=r)
            for s,r in zip(names, person_r2(truth, guess), strict=True)]
    rows += [dict(question=k, model='group mean', subject=s, r2=r)
             for s,r in zip(names, person_r2(truth, {'bold': 0*truth['bold']}), strict=True)]
    return pd.concat([t, pd.DataFrame(rows)]).assign(cohort=kind+' at sensors', seed=seed, steps=steps,
                                                     loss=log['train_loss'].iloc[-1])

def trained_model(what, kind, seed, signals, c, a):
    "The model of a job, and its log"
    *_, patches, network, steps, batch = sizes[a.size]
    what, *plain = what.split('-')
    steps = a.steps or steps*(3 if what=='bold' and a.size in equal_bold else 4)//4
    streams = joint_streams[:1] if what=='bold' else joint_streams
    signals = {s.name: signals[s.name] for s in streams}
    model = new_modal(c.parcellation, streams, patches, network, seed, prior='none' if plain else 'space-time')
    if not plain: model.fit_prior(signals)
    def learner(model, folder):
        training = Training(batch, seed=seed, progress=False)
        return modal_learner(model, signals, folder, training=training, question='BOLD from EEG' if what=='one' else '')
    folder = a.out/f'run_{what}{"-plain" if plain else ""}_{kind}_{seed}'
    learn, begun = learner(model, folder), (folder/'recipe.json').is_file()
    steps = steps if begun else steps_for(model, learner, steps, a)
    if not steps: sys.exit('too few steps')
    epochs = math.ceil(steps/len(learn.dls.train))
    if begun: epochs = json.loads((folder/'recipe.json').read_text())['epochs']
    log = learn.pretrain(epochs, 2e-3 if a.size=='large' else 4e-3, resume=begun)
    return model, log.assign(steps=epochs*len(learn.dls.train))

def train(job, kind, seed, a):
    "Train one model and score it"
    signals, tested, names, c = cohort(kind, a.size)
    model, log = trained_model(job, kind, seed, signals, c, a)
    what, *plain = job.split('-')
    on = {k: x.to(model.own.device) for k,x in tested.items()}
    t = model_scores(model, on, names, named[what]+('' if plain else ' on a prior'))
    if what=='one': t = t[t['question']=='BOLD from EEG']
    t = t.assign(cohort=kind, seed=seed, steps=log['steps'].iloc[-1], seconds=log['seconds'].sum(),
                 loss=log['train_loss'].iloc[-1])
    if what=='both' and seed==0:
        read = coupling_read(model, on).assign(cohort=kind, channel=range(len(c.parcellation)))
        planted = pd.DataFrame(c.weights.T, columns=['planted_'+b for b in ('alpha', 'beta', 'gamma')])
        pd.concat([read, planted], axis=1).to_csv(a.out/f'read_{kind}.csv', index=False)
        model.save_pretrained(a.out/f'model_{kind}')
    return t

def rivals(kind, a):
    "Fit and score the rivals of one cohort"
    signals, tested, names, c = cohort(kind, a.size)
    model = new_modal(c.parcellation, n_patches=sizes[a.size][3], prior='space-time').fit_prior(signals).eval()
    for o in model.head.parameters(): torch.nn.init.zeros_(o)
    alone = model_scores(model, tested, names, 'prior of each stream, no network')
    t, chosen = rival_scores(signals, tested, names, model, a.questions)
    settings = {' | '.join(k): dict(own=m.own, penalty=m.penalty, rank=m.rank, shifts=len(m.shifts_s))
                for k,m in chosen.items()}
    (a.out/f'settings_{kind}.json').write_text(json.dumps(settings, indent=1))
    return pd.concat([t, alone]).assign(cohort=kind, seed=0)

def work(name, a):
    "One job, whose rows are written"
    what, kind, seed = name.split(':')
    does = dict(rivals=lambda: rivals(kind, a), sensors=lambda: sensors(kind, int(seed), a))
    t = does.get(what, lambda: train(what, kind, int(seed), a))()
    t.to_csv(a.out/f"scores_{name.replace(':', '_')}.csv", index=False, float_format='%.5f')

def begin(a):
    "All jobs at once, as many as there are cores"
    left, running = jobs(a.size), {}
    same = ['--out', str(a.out), '--until', str(a.until), '--spare', str(a.spare), '--size', a.size]
    while left or running:
        while left and len(running)<a.cores:
            name = left.pop(0)
            log = open(a.out/f"log_{name.replace(':', '_')}.txt", 'w')
            running[name] = subprocess.Popen([sys.executable, __file__, '--job', name, *same], stdout=log, stderr=log)
        for name,p in list(running.items()):
            if p.poll() is not None: print(name, 'done' if running.pop(name).returncode==0 else 'FAILED', flush=True)
        if time.time()>a.until+a.spare/2:
            for p in running.values(): p.kill()
            print('out of time:', *running, *left)
            return
        time.sleep(.5)

def families(rows):
    "A judged model, and the rows of it and those that it is held against; a plain one only against plain ones"
    ours, plain = rows['model'].str.startswith('BrainLM'), ~rows['model'].str.contains('on a prior')
    names = 'BrainLM on a prior', 'BrainLM on a prior from the first step', 'BrainLM'
    for judged in [m for m in names if m in set(rows['model'])] or ['BrainLM of one question']:
        alone = rows['model'].str.contains('BOLD alone') & (plain | ('on a prior' in judged))
        yield judged, rows[(rows['model']==judged) | alone | ~ours | rows['model'].str.contains('one question')]

def judge(folder, file, size):
    "Scores of a folder into a table of results"
    t = pd.concat([pd.read_csv(f) for f in sorted(folder.glob('scores_*.csv'))])
    where = f'{sizes[size][2]} parcels'+dict(wide=', 64 s', company=', 200 people').get(size, '')
    for kind,every in t.groupby('cohort', sort=False):
        for judged,rows in families(every):
            for q,(values,found) in crossing_verdicts(rows, judged).items():
                ours = [m for m in values.index if m.startswith('BrainLM')]
                data = '8 sensors, '+words[kind.split()[0]] if 'sensors' in kind else f'{where}, {words[kind]}'
                r = result_rows(values, found, task=q, data=data, kind='simulated', metric='R²', ours=ours)
                keep_results(file, r, f'python tools/modalities.py --size {size}')

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--out', type=Path, required=True, help='folder')
    p.add_argument('--seconds', type=float, default=380, help='all of it together')
    p.add_argument('--cores', type=int, default=16, help='processes at once; twice the cores on a card')
    p.add_argument('--size', default='large', choices=sizes, help='of cohorts, network and training')
    p.add_argument('--questions', nargs='*', help='of the rivals; all where none is named')
    p.add_argument('--steps', type=int, help='other than those of the size')
    p.add_argument('--judge', type=Path, help='table of results to write')
    p.add_argument('--job', help='one of the jobs only')
    p.add_argument('--until', type=float, help='of a job: when it must be done, as time.time()')
    p.add_argument('--spare', type=float, default=45, help='seconds for the scores after a training')
    a = p.parse_args()
    if a.judge: return judge(a.out, a.judge, a.size)
    a.out.mkdir(parents=True, exist_ok=True)
    a.until = a.until or time.time()+a.seconds-5
    return work(a.job, a) if a.job else begin(a)

if __name__=='__main__': main()
