"Every kind of bad input in bad_input.py has one clear answer, and nothing that is stored is lost by it"
import hashlib
import re
import shlex
import warnings

import bad_input
import pytest

unclear = re.compile(r'not foreseen|Traceback|<class|object at 0x|fastai|size mismatch for|DataFrame|errno|Errno'
                     r'|codec can|\bKeyError')
known = ValueError, TypeError, OSError, KeyError, IndexError, ImportError

@pytest.fixture(scope='module')
def world(tmp_path_factory):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return bad_input.World(tmp_path_factory.mktemp('world'))

def stored(w): # what must still be there
    files = [f for n in ('s','m') for f in sorted((w.at/n).rglob('*')) if f.is_file()]
    return {str(f): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}

@pytest.fixture(scope='module', autouse=True)
def nothing_is_lost(world):
    before = stored(world)
    yield
    after = stored(world)
    assert {k: after.get(k) for k in before}==before

@pytest.mark.parametrize('name', bad_input.calls)
def test_a_call(world, name):
    says,call = bad_input.calls[name]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with pytest.raises(known) as e: call(world)
    words = str(e.value)
    assert re.search(says, words), words
    assert '\n' not in words and len(words)<900 and not unclear.search(words), words

@pytest.fixture(scope='module')
def registered():
    "The analyses, found once"
    from brainlm.cli import _registered
    return _registered()

@pytest.fixture
def shell(world, registered, monkeypatch):
    import brainlm.cli as cli
    monkeypatch.setattr(cli, '_registered', lambda: registered)
    monkeypatch.chdir(world.at)
    return cli.main

@pytest.mark.parametrize('name', bad_input.commands)
def test_a_command(shell, capsys, name):
    words,says,code = bad_input.commands[name]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try: got = shell(shlex.split(words))
        except SystemExit as e: got = e.code
    err = capsys.readouterr().err
    last = err.rstrip().splitlines()[-1] if err.strip() else ''
    assert got==code and re.search(says, err if code==2 else last) and not unclear.search(err), (got, err[-600:])
    assert code==2 or last.startswith('brainlm: ') and '\n' not in last and len(last)<900, err

def test_how_many():
    import hostile
    assert len(bad_input.calls)+len(bad_input.commands)+len(hostile.corpus)>=150
