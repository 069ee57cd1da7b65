#include "models/shape/view_channels.h"

#include "models/image/transform.h"
#include "runtime/core/log.h"

namespace trireme {

ViewLayout LayoutOfViews(int64_t views, int64_t side) {
  return {
      .channels = kViewChannels, .views = views, .height = side, .width = side};
}

std::vector<float> ChannelsOf(const ShapeViews& views, int side) {
  const auto count = static_cast<int64_t>(views.cameras.size());
  const ViewLayout layout = LayoutOfViews(count, side);
  const int64_t pixels = layout.pixels();
  CHECK_EQ(static_cast<int64_t>(views.depths.size()), count * pixels);
  std::vector<float> values(layout.elements());
  std::vector<float> colors(kColorChannels * pixels);
  for (int64_t view = 0; view < count; ++view) {
    const auto put = [&](int64_t first, std::span<const float> channels) {
      PutChannelsOfView(channels, layout, view, first, std::span(values));
    };
    const auto picture =
        views.pictures.subspan(view * colors.size(), colors.size());
    ToFloat({.width = side,
             .height = side,
             .channels = static_cast<int>(kColorChannels),
             .pixels = {picture.begin(), picture.end()}},
            colors);
    put(0, colors);
    put(kDepthChannel, views.depths.subspan(view * pixels, pixels));
    put(kRayChannel, CameraRays(views.cameras[view], side));
  }
  return values;
}

}  // namespace trireme
