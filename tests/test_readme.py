"What README shows, run as it is written: the three lines, and five commands on a folder of files with what they print"
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

root = Path(__file__).resolve().parents[1]
readme = (root/'README.md').read_text(encoding='utf-8')
number = re.compile(r'[-+]?\d[\d,]*\.?\d*(?:e[-+]?\d+)?')

def section(title):
    "What stands below a heading"
    return re.search(rf'^## {re.escape(title)}\n(.*?)(?=^## )', readme, re.S | re.M)[1]

def files_of_a_reader(folder, n=20):
    "Series of 424 parcels in the layout of XCP-D, with no word on the repetition time, and a table of ages: simulated people"
    from brainlm.simulation import simulate_cohort
    store = simulate_cohort(folder/'simulated', n, 'a424', n_time=200)
    first = store.table.drop_duplicates('subject')
    for i,row in enumerate(first.index):
        who, d = f'sub-{i+1:02}', folder/'derivatives'/f'sub-{i+1:02}'/'func'
        d.mkdir(parents=True)
        stem = f'{who}_task-rest_space-MNI152NLin2009cAsym_seg-A424_stat-mean_timeseries'
        pd.DataFrame(store.read(row), columns=store.parcellation.names).to_csv(d/f'{stem}.tsv', sep='\t', index=False, float_format='%.5g')
    about = dict(Name='Twenty people', BIDSVersion='1.8.0', DatasetType='derivative', Provenance='simulated')
    (folder/'derivatives'/'dataset_description.json').write_text(json.dumps(about))
    people = pd.DataFrame(dict(participant_id=[f'sub-{i+1:02}' for i in range(n)], age=first['age'].to_numpy().round(1)))
    people.to_csv(folder/'people.csv', index=False)

def shown():
    "Commands of the five, and what README says that each prints"
    text = section('Your own files, in five commands')
    pairs = re.findall(r'```bash\n(.*?)```\s*```text\n(.*?)```', text, re.S)
    return [(c.strip().split('  #')[0], out.strip()) for c,out in pairs]

def run(command, folder):
    words = shlex.split(command)
    assert words[0]=='.venv/bin/brainlm'
    alone = dict(OMP_NUM_THREADS='1', COLUMNS='80', PYTHONPATH=str(root), BRAINLM_CACHE=str(folder/'cache'))
    return subprocess.run([sys.executable, '-m', 'brainlm.cli', *words[1:]], cwd=folder, capture_output=True, text=True,
                          env=os.environ | alone, stdin=subprocess.DEVNULL)

def as_shown(says):
    "A pattern of the words that README shows: any numbers, and anything where it says …"
    words = number.sub('#', ' '.join(says.split()))
    return re.escape(words).replace(re.escape('…'), '.*').replace(re.escape('#'), '#')

def test_five_commands_are_shown(): assert len(shown())==5

def test_the_front_is_short():
    "One sentence, a picture, two commands and three lines come before one's own files: at most two screens of 55 lines"
    before = readme.split('## Your own files')[0]
    lines = sum(max(1, -(-len(re.sub(r'\(.*?\)', '', o))//100)) for o in before.splitlines() if o.strip())
    assert lines+before.count('![')*14<=110, f'{lines} lines and {before.count("![")} pictures before one\'s own files'
    parts = ['![', '## Two commands', '## Three lines']
    assert sorted(parts, key=before.index)==parts

@pytest.mark.slow
def test_commands_print_what_is_shown(tmp_path):
    "Each as it is written, one after the other, in a folder with files of twenty simulated people"
    files_of_a_reader(tmp_path)
    for command,says in shown():
        r = run(command, tmp_path)
        assert r.returncode==0, f'{command}\n{r.stdout}{r.stderr}'
        said = number.sub('#', ' '.join(r.stdout.split()))
        assert re.fullmatch(as_shown(says), said), f'{command} prints\n{r.stdout}\nREADME says\n{says}'

@pytest.mark.slow
def test_three_lines_run(tmp_path, monkeypatch):
    "With a real person where the sample is at hand"
    code = re.search(r'```python\n(.*?)```', section('Three lines'), re.S)[1]
    said = {}
    try: exec(code, said)
    except FileNotFoundError as e: pytest.skip(f'the sample is not here: {e}')
    assert np.isfinite(said['whole'].signal).all() and said['future'].shape[0]==20 and said['person'].ndim==1

@pytest.mark.slow
def test_a_map_is_compared():
    code = re.search(r'```python\n(.*?)```', section('Maps, EEG and a scoreboard'), re.S)[1]
    *lines, last = code.strip().splitlines()
    said = {}
    try: exec('\n'.join(lines), said)
    except FileNotFoundError as e: pytest.skip(f'the maps are not here: {e}')
    try: found = eval(last, said)
    except FileNotFoundError as e: pytest.skip(f'the maps are not here: {e}')
    assert found['p'].between(0, 1).all()

if __name__=='__main__':                                                    # python tests/test_readme.py FOLDER: what README is to say
    files_of_a_reader(folder := Path(sys.argv[1]))
    for command,_ in shown():
        r = run(command, folder)
        print(f'$ {command}\n{r.stdout}{r.stderr}', flush=True)
