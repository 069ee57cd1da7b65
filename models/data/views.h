// Samples that are several views of one thing: [channels, views·height, width],
// one view under another.

#ifndef TRIREME_MODELS_DATA_VIEWS_H_
#define TRIREME_MODELS_DATA_VIEWS_H_

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace trireme {

struct ViewLayout {
  int64_t channels = 0;
  int64_t views = 1;
  int64_t height = 0;  // of one view
  int64_t width = 0;

  int64_t pixels() const { return height * width; }  // of one view
  int64_t elements() const { return channels * views * pixels(); }
  // Where the view's part of a channel begins.
  int64_t Offset(int64_t view, int64_t channel) const {
    return (channel * views + view) * pixels();
  }
};

// Channels first, first + 1, .. of a view: [count, height, width].
template <typename T>
std::vector<T> ChannelsOfView(std::span<const T> sample,
                              const ViewLayout& layout, int64_t view,
                              int64_t first, int64_t count) {
  std::vector<T> values;
  values.reserve(count * layout.pixels());
  for (int64_t c = first; c < first + count; ++c) {
    const auto begin = sample.begin() + layout.Offset(view, c);
    values.insert(values.end(), begin, begin + layout.pixels());
  }
  return values;
}

// Writes them: values [count, height, width].
template <typename T>
void PutChannelsOfView(std::span<const T> values, const ViewLayout& layout,
                       int64_t view, int64_t first, std::span<T> sample) {
  const auto count = static_cast<int64_t>(values.size()) / layout.pixels();
  for (int64_t i = 0; i < count; ++i) {
    std::copy_n(values.begin() + i * layout.pixels(), layout.pixels(),
                sample.begin() + layout.Offset(view, first + i));
  }
}

}  // namespace trireme

#endif  // TRIREME_MODELS_DATA_VIEWS_H_
