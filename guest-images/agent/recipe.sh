# shellcheck shell=bash disable=SC2034,SC2154
about="snug-agent, which runs commands in a guest for snug: a static program for any Linux"
needs=(image)
shared=(../vmm/protocol/{frames,messages,tree_entry,tree_file,tree_reader,tree_writer}.{h,cpp})
result=snug-agent

# Without exceptions and run-time types, or it would be three times as large.
make_image() {
  local top=$guest_images/..
  g++ -std=c++20 -Os -Wall -Wextra -Werror -D_GNU_SOURCE -fno-exceptions -fno-rtti -ffunction-sections -fdata-sections \
    -static -s -Wl,--gc-sections,--build-id=none -I "$top" -o "$1/snug-agent" \
    "$guest_images"/agent/*.cpp "$top"/vmm/protocol/*.cpp
}
