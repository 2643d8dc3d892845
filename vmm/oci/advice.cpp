#include "vmm/oci/advice.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

namespace snug::oci {
namespace {

struct Advice {
  // Of the message, which has one of these in it.
  std::array<std::string_view, 4> words;
  // {registry} and {repository} stand for those of the image.
  std::string_view text;
};

// The first that fits. Registries that tell nobody what they have say "denied" or "unauthorized" of what they
// lack, too.
constexpr std::array kOfRegistries{
    Advice{{"too many requests", "toomanyrequests"},
           "wait a while, or log in, which allows more: skopeo login {registry}"},
    Advice{{"invalid username/password"},
           "the name or the password that is kept for {registry} is not right any more: skopeo login "
           "{registry}"},
    Advice{{"unauthorized", "uthentication required", "(Unauthorized)"},
           "log in, if it is a private one: skopeo login {registry}; and is its name right?"},
    Advice{{"denied", "(Forbidden)"},
           "is its name right? if so, log in as somebody who may have it: skopeo login {registry}"},
    Advice{{"server gave HTTP response to HTTPS client"},
           "a registry without TLS has to be allowed in ~/.config/containers/registries.conf: "
           "[[registry]], location = \"{registry}\", insecure = true"},
    Advice{{"pinging container registry"}, "is {registry} a registry, and is it up?"},
    Advice{{"blob sha256:"}, "{registry} knows the image and lacks a part of it: it has to be pushed again"},
    Advice{{"manifest unknown", "name unknown", "not found", "(Not Found)"},
           "are its name and tag right? those that are there: skopeo list-tags docker://{repository}"},
};

constexpr std::array kOfDocker{
    Advice{{"permission denied"},
           "docker's socket is for members of its group: sudo, or log in again after: sudo adduser $USER "
           "docker"},
    Advice{{"is too old"},
           "this skopeo is too old for that daemon: docker save, and then docker-archive:FILE"},
    Advice{{"Cannot connect", "onnection refused", "no such file"},
           "does docker run here? DOCKER_HOST names a daemon elsewhere; without one: docker save, and then "
           "docker-archive:FILE"},
    Advice{{"No such image", "no such image", "reference does not exist"},
           "those that docker has: docker images"},
};

constexpr std::array kOfPodman{
    Advice{{"not resolve to an image", "not known", "not an image"},
           "those that this user has: podman images"},
};

void remove_all(std::string& text, std::string_view part) {
  for (size_t at; !part.empty() && (at = text.find(part)) != std::string::npos;) text.erase(at, part.size());
}

// What an image is called is nothing that was said of it.
std::string without_names(std::string message, const Reference& reference, std::string_view repository) {
  for (const std::string_view name :
       {std::string_view(reference.source), std::string_view(reference.name), repository})
    remove_all(message, name);
  return message;
}

}  // namespace

Error with_room_hint(Error error) {
  for (const char* full : {"o space left on device", "isk quota exceeded"})
    if (error.message.find(full) != std::string::npos)
      error.hint =
          "make room: snug image prune --all removes what can be brought again; nothing half-made stays";
  return error;
}

Error with_advice(Error error, const Reference& reference) {
  error = with_room_hint(std::move(error));
  if (!error.hint.empty()) return error;
  std::string_view repository(reference.name);
  repository = repository.substr(0, repository.find('@'));
  if (const size_t colon = repository.rfind(':');
      colon != std::string_view::npos && repository.find('/', colon) == std::string_view::npos)
    repository = repository.substr(0, colon);
  const std::string_view registry = repository.substr(0, repository.find('/'));
  const std::string said = without_names(error.message, reference, repository);
  const auto advise = [&](const auto& all) {
    for (const Advice& each : all) {
      const auto fits = [&](std::string_view words) {
        return !words.empty() && said.find(words) != std::string::npos;
      };
      if (std::ranges::none_of(each.words, fits)) continue;
      error.hint = fmt::format(fmt::runtime(each.text), fmt::arg("registry", registry),
                               fmt::arg("repository", repository));
      return;
    }
  };
  if (reference.source.starts_with("docker://")) advise(kOfRegistries);
  if (reference.source.starts_with("docker-daemon:")) advise(kOfDocker);
  if (reference.source.starts_with("containers-storage:")) advise(kOfPodman);
  return error;
}

}  // namespace snug::oci
