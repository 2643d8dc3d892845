// The scripts for the shells. They know nothing of commands and flags: `snug complete -- WORDS...` does, of
// the program that is being typed, so that they never get out of date. Its answer is described in complete.h.
#include "vmm/cli/complete.h"

namespace snug::cli {
namespace {

// bash replaces no more than what stands behind the last character of COMP_WORDBREAKS.
constexpr std::string_view kBash = R"script(# bash completion for snug
_snug() {
  local line=${COMP_LINE:0:COMP_POINT} program=${COMP_WORDS[0]/#\~/$HOME} words word text before file
  read -ra words <<<"$line"
  [[ $line != *[[:space:]] ]] || words+=("")
  word=${words[-1]}
  COMPREPLY=()
  while IFS= read -r text; do
    case $text in
      :*)
        before=${text#* }
        # As a name of a file the colon behind a machine's would be quoted.
        [[ ${#COMPREPLY[@]} != 0 ]] || compopt -o filenames
        while IFS= read -r file; do
          [[ $text != :specs* || -d $file || $file == *.yaml || $file == *.yml ]] && COMPREPLY+=("$before$file")
        done < <(compgen -f -- "${word:${#before}}")
        ;;
      *) COMPREPLY+=("${text%%$'\t'*}") ;;
    esac
  done < <("$program" complete -- "${words[@]:1}" 2>/dev/null)
  [[ ${#COMPREPLY[@]} != 1 || ${COMPREPLY[0]} != *[:=,] ]] || compopt -o nospace
  local tail=$word
  [[ $COMP_WORDBREAKS != *:* ]] || tail=${tail##*:}
  [[ $COMP_WORDBREAKS != *=* ]] || tail=${tail##*=}
  COMPREPLY=("${COMPREPLY[@]#"${word%"$tail"}"}")
} 2>/dev/null
complete -F _snug snug
)script";

constexpr std::string_view kZsh = R"script(#compdef snug
_snug() {
  local text word about files before
  local -a words_now open_words open_shown closed_words closed_shown
  words_now=("${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}")
  while IFS= read -r text; do
    if [[ $text == :* ]]; then
      files=${text%% *} before=${text#* }
      continue
    fi
    word=${text%%$'\t'*} about=
    [[ $text != *$'\t'* ]] || about="  -- ${text#*$'\t'}"
    if [[ $word == *[:=,] ]]; then
      open_words+=("$word") open_shown+=("$word$about")
    else
      closed_words+=("$word") closed_shown+=("$word$about")
    fi
  done < <("${(Q)words[1]/#\~/$HOME}" complete -- "${words_now[@]}" 2>/dev/null)
  (( $#closed_words )) && compadd -l -d closed_shown -- "${closed_words[@]}"
  (( $#open_words )) && compadd -S '' -l -d open_shown -- "${open_words[@]}"
  [[ -z $files ]] || compset -P "${(b)before}"
  case $files in
    :files) _files ;;
    :specs) _path_files -g '*.(yaml|yml)'; _path_files -/ ;;
  esac
}
if [[ $funcstack[1] == _snug ]]; then _snug "$@"; else compdef _snug snug; fi
)script";

constexpr std::string_view kFish = R"script(# fish completion for snug
function __snug_complete
    set -l words (commandline -opc)
    set -l word (commandline -ct)
    set -l program (string replace -r '^~' $HOME -- $words[1])
    for line in ($program complete -- $words[2..-1] "$word" 2>/dev/null)
        if not string match -q ':*' -- $line
            echo $line
            continue
        end
        set -l before (string replace -r '^:[a-z]+ ' '' -- $line)
        set -l start (string sub -s (math (string length -- "$before") + 1) -- "$word")
        for file in (__fish_complete_path "$start" "")
            set file (string replace -r '\t.*' '' -- $file)
            if string match -q ':specs*' -- $line; and not string match -qr '(/|\.ya?ml)$' -- $file
                continue
            end
            echo $before$file
        end
    end
end
complete -c snug -f -a '(__snug_complete)'
)script";

}  // namespace

std::string_view completion_script(std::string_view shell) {
  if (shell == "bash") return kBash;
  if (shell == "zsh") return kZsh;
  if (shell == "fish") return kFish;
  return {};
}

}  // namespace snug::cli
