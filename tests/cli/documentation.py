"""Manual pages, completion in each shell, what `meson install` puts where."""
import json
import shutil

from harness import *  # noqa: F403

PAGES = ("snug", "snug.yaml")


def needs(program):
    if not shutil.which(program):
        raise Skip(f"{program} is not installed")


def plain(page):
    """The page's source without what troff wants."""
    text = snug("manual", page).expect(0).out
    for escape, character in (("\\fB", ""), ("\\fI", ""), ("\\fR", ""), ("\\-", "-"), ("\\(aq", "'"), ("\\(ti", "~"),
                              ("\\(dq", '"'), ("\\(ga", "`"), ("\\(ha", "^"), ("\\&", ""), ("\\e", "\\")):
        text = text.replace(escape, character)
    return text


def commands():
    """Of snug --help."""
    words = re.findall(r"^  (\w+) {2,}\S", snug("--help").expect(0).out.split("Subcommands:")[1], re.M)
    check({"run", "exec", "ps", "rm"} <= set(words), "commands are missing in --help", words)
    return words


@test
def the_manual_names_every_command_and_flag():
    page = plain("snug")
    for command in commands():
        check(re.search(rf"^\.SS snug {command}\b", page, re.M), f"snug {command} is not there")
        help_text = snug(command, "--help").expect(0).out
        section = re.split(r"^\.S[SH] ", page.split(f".SS snug {command}", 1)[1], maxsplit=1, flags=re.M)[0]
        flags = re.findall(r"^  (?:-\w,)?(--[\w-]+)", help_text, re.M)
        for flag in flags:
            place = page if command == "run" else section
            check(flag == "--help" or re.search(rf"{flag}\b(?!-)", place), f"snug {command} {flag} is not there")
        check(flags, f"{command} --help names no flags", help_text)


def keys_of(schema, found):
    """Every key, those of maps and lists of maps included."""
    for name, value in schema.get("properties", {}).items():
        found.append(name)
        for form in value.get("anyOf", []):
            keys_of(form, found)
    return found


@test
def the_manual_names_every_key():
    page = plain("snug.yaml")
    keys = keys_of(json.loads(snug("schema").expect(0).out), [])
    check({"memory", "disks", "readonly", "host_loopback", "cid", "file"} <= set(keys), "keys are missing in the schema", keys)
    for key in set(keys):
        count = len(re.findall(rf"^{key}:", page, re.M))
        check(count >= keys.count(key), f"{key} is there {count} times, the schema has it {keys.count(key)} times")
    # A flag of run is the command line's own, or that of a key.
    own = plain("snug").split(".SS snug run", 1)[1].split(".SS ", 1)[0]
    for flag in re.findall(r"^  (?:-\w,)?(--[\w-]+)", snug("run", "--help").expect(0).out, re.M):
        check(flag == "--help" or re.search(rf"{flag}\b(?!-)", own + page), f"{flag} of a key is not there")


@test
def the_manual_shows_the_example_as_it_is():
    with open(os.path.dirname(__file__) + "/../../guest-images/examples/test-run") as script:
        lines = [line for line in script.read().splitlines() if not line.startswith("#")]
    check("\n".join(lines) in plain("snug"), "snug(1) shows another test-run", *lines)


@test
def pages_render_without_a_warning():
    with tempfile.TemporaryDirectory() as folder:
        for page in PAGES:
            path = f"{folder}/{page}.roff"
            with open(path, "w") as file:
                file.write(snug("manual", page).expect(0).out)
            seen = 0
            for tool in (["groff", "-ww", "-man", "-Tutf8", "-Kutf8", "-rLL=80n", "-P-c", "-P-b", "-P-u", path], ["mandoc", "-T", "lint", "-W", "warning", path]):
                if not shutil.which(tool[0]):
                    continue
                seen += 1
                done = subprocess.run(tool, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                      env={**os.environ, "LC_ALL": "C.UTF-8"})
                complaints = done.stderr + (done.stdout if tool[0] == "mandoc" else "")
                check(complaints == "" and done.returncode == 0, f"{tool[0]} complains of {page}", complaints)
                wide = [line for line in done.stdout.splitlines() if len(line) > 80]
                check(tool[0] != "groff" or not wide, f"{page} is wider than 80 columns", *wide)
                check(tool[0] != "groff" or len(done.stdout.splitlines()) > 200, f"{page} is short", done.stdout)
            if seen == 0:
                raise Skip("neither groff nor mandoc is installed")


# --- completion ----------------------------------------------------------------------------------------------
def offered(*words):
    """What the program offers, whatever the shell."""
    return [line.split("\t")[0] for line in snug("complete", "--", *words).expect(0).out.splitlines()]


@test
def completion_knows_commands_flags_and_words():
    for words, wanted in ((["st"], ["stop", "stats"]), (["run", "--on-r"], ["--on-reboot"]), (["run", "--on-panic", ""], ["exit", "restart", "ignore"]),
                          (["run", "--on-panic=r"], ["--on-panic=restart"]), (["run", "-m", "1G", "--log-level", "d"], ["debug"]),
                          (["run", "--balloon", ""], ["none"]), (["run", "--cpus", ""], []), (["run", "--console", "f"], ["file:", ":files "]),
                          (["run", ""], [":specs "]), (["run", "a.yaml", ""], []), (["validate", ""], [":specs "]),
                          (["run", "--disk", "a,readonly="], ["a,readonly=true", "a,readonly=false"]),
                          (["run", "--disk=a,pat"], ["--disk=a,path="]), (["run", "-n", "t"], ["tap", "tap=", "thread="]),
                          (["run", "-v", "sr"], [":files "]), (["run", "--share=sr"], [":files --share="]),
                          (["run", "-v", "src:/work:r"], ["src:/work:ro", "src:/work:rw"]), (["run", "-v", "src:"], ["src:ro", "src:rw"]),
                          (["run", "--volume", "src:/work,cache=a"], ["src:/work,cache=auto", "src:/work,cache=always"]),
                          (["run", "-v", "src,sub"], ["src,submounts="]), (["run", "--vol"], ["--volume"]),
                          (["run", "-k", ""], [":files "]), (["run", "--kernel=/e"], [":files --kernel="]),
                          (["run", "--", ""], []), (["run", "--", "--mem"], []), (["exec", "x", "--", "--in"], []),
                          (["exec", "--in"], ["--interactive"]), (["logs", "--f"], ["--follow"]), (["nonsense", ""], []),
                          (["completion", ""], ["bash", "zsh", "fish"]), (["manual", "snug."], ["snug.yaml"])):
        check(offered(*words) == wanted, f"behind {words} stands {offered(*words)}, not {wanted}")
    check(set(offered("run", "--")) > {"--memory", "--detach", "--junit"}, "flags of run are missing", offered("run", "--"))
    check("--memory" not in offered("exec", "--"), "exec is offered what run has")


def completes(shell, ask):
    """`ask(line, folder, env)`: what the shell makes of that line when Tab is pressed."""
    needs(shell)
    with tempfile.TemporaryDirectory() as folder:
        os.symlink(os.path.abspath(SNUG), folder + "/snug")
        env = {**os.environ, "XDG_RUNTIME_DIR": folder, "PATH": f"{folder}:{os.environ['PATH']}", "HOME": folder}
        os.mkdir(folder + "/snug-files")
        for name in ("one.yaml", "two.img"):
            with open(f"{folder}/snug-files/{name}", "w"):
                pass
        with open(folder + "/script", "w") as file:
            file.write(snug("completion", shell).expect(0).out)
        for line, wanted in (("snug val", "validate"), ("snug run --mem", "--memory"), ("snug run --on-panic ig", "ignore"),
                             ("snug run --on-panic=ig", "ignore"), ("snug exec --work", "--workdir"),
                             ("snug run --disk a.img,reado", "a.img,readonly="), ("snug run snug-files/o", "snug-files/one.yaml"),
                             ("snug run -k snug-files/t", "snug-files/two.img")):
            got = ask(line, folder, env)
            check(wanted in got, f"{shell}: {line!r} does not become {wanted}", got)
        got = ask("snug run snug-files/t", folder, env)
        check("two.img" not in got, f"{shell}: a spec may be two.img", got)


@test
def bash_completes():
    def ask(line, folder, env):
        script = (f"cd {folder}; source ./script; complete -p snug >/dev/null || exit; COMP_LINE='{line}' COMP_POINT={len(line)}; "
                  f"COMP_WORDS=({line}); _snug; printf '%s\\n' \"${{COMPREPLY[@]}}\"")
        return subprocess.run(["bash", "--norc", "-c", script], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, timeout=BOUND).stdout

    completes("bash", ask)


@test
def fish_completes():
    def ask(line, folder, env):
        return subprocess.run(["fish", "--no-config", "-c", f"cd {folder}; source ./script; complete -C '{line}'"], env=env,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=BOUND).stdout

    completes("fish", ask)


@test
def zsh_completes():
    def ask(line, folder, env):
        # A shell on a terminal of its own, as nothing else of zsh completes; the buffer is printed behind Tab.
        script = ("zmodload zsh/zpty; zpty z zsh -f -i; zpty -w z 'PS1=; cd " + folder + "; autoload -Uz compinit; compinit -u -d "
                  + folder + "/dump; source ./script; unsetopt list_beep; show() { print -r -- \"[$BUFFER]\" >" + folder
                  + "/got; }; zle -N show; bindkey \"^I\" expand-or-complete; bindkey \"^Xs\" show; print READY'; "
                  "zpty -r z out '*READY*READY*'; rm -f " + folder + "/got; zpty -w -n z $'" + line + "\\t\\C-xs'; "
                  "repeat 600; do [[ -s " + folder + "/got ]] && break; sleep 0.1; done; cat " + folder + "/got; zpty -d z")
        return subprocess.run(["zsh", "-f", "-c", script], env={**env, "TERM": "xterm"}, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=BOUND).stdout

    completes("zsh", ask)


# --- installation --------------------------------------------------------------------------------------------
@test
def meson_installs_what_comes_with_the_program():
    needs("meson")
    build = os.path.dirname(os.path.abspath(SNUG)) + "/../.."
    if not os.path.exists(build + "/build.ninja"):
        raise Skip("the program is not in a build tree")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(["meson", "install", "--no-rebuild", "-C", build, "--destdir", folder], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=BOUND)
        check(done.returncode == 0, "meson install fails", done.stdout)
        found = [os.path.relpath(os.path.join(top, name), folder) for top, _, names in os.walk(folder) for name in names]
        for wanted in ("bin/snug", "share/man/man1/snug.1", "share/man/man5/snug.yaml.5", "share/bash-completion/completions/snug",
                       "share/zsh/site-functions/_snug", "share/fish/vendor_completions.d/snug.fish", "share/snug/snug.schema.json",
                       "lib/systemd/user/snug@.service", "share/snug/guest-images/build"):
            place = [name for name in found if name.endswith("/" + wanted)]
            check(len(place) == 1, f"{wanted} is not installed once", *found)
            check(os.path.getsize(f"{folder}/{place[0]}") > 500, f"{wanted} is short")


@test
def the_commit_is_that_of_the_source_tree():
    needs("git")
    script = os.path.dirname(os.path.abspath(__file__)) + "/../../tools/lib/source-commit"

    def put_into(tree):
        os.makedirs(tree + "/tools/lib")
        shutil.copy(script, tree + "/tools/lib/source-commit")

    def said(tree):
        done = subprocess.run([tree + "/tools/lib/source-commit"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        return done.stdout if done.returncode == 0 else "no commit"

    with tempfile.TemporaryDirectory() as folder:
        folder = os.path.realpath(folder)
        put_into(folder)
        check(said(folder) == "no commit", "a tree without git has a commit", said(folder))
        git = ["git", "-C", folder, "-c", "user.name=x", "-c", "user.email=x@example.org"]
        for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "x"]):
            subprocess.run([*git, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        check(re.fullmatch(r"[0-9a-f]{12}\n", said(folder)), "not a commit", said(folder))
        with open(folder + "/tools/lib/source-commit", "a") as file:
            file.write("# changed\n")
        check(re.fullmatch(r"[0-9a-f]{12}\+\n", said(folder)), "a changed file makes no difference", said(folder))
        put_into(folder + "/unpacked")
        check(said(folder + "/unpacked") == "no commit", "the commit of somebody else's repository", said(folder + "/unpacked"))
