// Views of a shape as models of several views learn them: pictures, depths and
// where the camera was, all as channels of pictures (models/data/views.h).

#ifndef TRIREME_MODELS_SHAPE_VIEW_CHANNELS_H_
#define TRIREME_MODELS_SHAPE_VIEW_CHANNELS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "models/data/views.h"
#include "models/shape/renderer.h"
#include "models/shape/shape_cache.h"

namespace trireme {

// Colours in [−1, 1], the depth (DepthView), and the six coordinates of a
// pixel's ray (CameraRays).
inline constexpr int64_t kColorChannels = 3;
inline constexpr int64_t kDepthChannel = kColorChannels;
inline constexpr int64_t kRayChannel = kDepthChannel + 1;
inline constexpr int64_t kRayChannels = 6;
inline constexpr int64_t kViewChannels = kRayChannel + kRayChannels;

// Of `views` views of `side` pixels.
ViewLayout LayoutOfViews(int64_t views, int64_t side);

// [kViewChannels, views·side, side] of a shape that has views.
std::vector<float> ChannelsOf(const ShapeViews& views, int side);

}  // namespace trireme

#endif  // TRIREME_MODELS_SHAPE_VIEW_CHANNELS_H_
