#include "models/image/canvas.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "models/image/font.h"
#include "runtime/core/log.h"

namespace trireme {
namespace {

double DistanceToSegment(double x, double y, Point a, Point b) {
  const double dx = b.x - a.x;
  const double dy = b.y - a.y;
  const double length_squared = dx * dx + dy * dy;
  double t = 0;
  if (length_squared > 0) {
    t = std::clamp(((x - a.x) * dx + (y - a.y) * dy) / length_squared, 0.0,
                   1.0);
  }
  return std::hypot(x - a.x - t * dx, y - a.y - t * dy);
}

}  // namespace

int TextWidth(std::string_view text, int scale) {
  if (text.empty()) return 0;
  const int dots = static_cast<int>(text.size()) * kGlyphAdvance -
                   (kGlyphAdvance - kGlyphWidth);
  return dots * scale;
}

void DrawRectangle(Image& image, int x, int y, int width, int height,
                   Color color) {
  CHECK_EQ(image.channels, 3);
  const int x_end = std::min(x + width, image.width);
  const int y_end = std::min(y + height, image.height);
  for (int row = std::max(y, 0); row < y_end; ++row) {
    for (int column = std::max(x, 0); column < x_end; ++column) {
      std::copy(color.begin(), color.end(), image.At(column, row));
    }
  }
}

void DrawText(Image& image, int x, int y, std::string_view text, int scale,
              Color color) {
  for (const char character : text) {
    for (int row = 0; row < kGlyphHeight; ++row) {
      for (int column = 0; column < kGlyphWidth; ++column) {
        if (!GlyphDot(character, column, row)) continue;
        DrawRectangle(image, x + column * scale, y + row * scale, scale, scale,
                      color);
      }
    }
    x += kGlyphAdvance * scale;
  }
}

void DrawPolyline(Image& image, std::span<const Point> points, double width,
                  double opacity, int top, int bottom, Color color) {
  CHECK_EQ(image.channels, 3);
  top = std::max(top, 0);
  bottom = std::min(bottom, image.height);
  if (points.empty() || top >= bottom) return;
  // The share of each pixel that the line covers: the largest over segments,
  // so that joints are not painted twice.
  std::vector<float> coverage(static_cast<size_t>(image.width) *
                              (bottom - top));
  const double reach = width / 2 + 0.5;
  for (size_t i = 0; i + 1 < std::max<size_t>(points.size(), 2); ++i) {
    const Point a = points[i];
    const Point b = points[std::min(i + 1, points.size() - 1)];
    const auto bound = [](double value, int low, int high) {
      return static_cast<int>(std::clamp(value, static_cast<double>(low),
                                         static_cast<double>(high)));
    };
    const int x_begin = bound(std::min(a.x, b.x) - reach, 0, image.width);
    const int x_end = bound(std::max(a.x, b.x) + reach + 1, 0, image.width);
    const int y_begin = bound(std::min(a.y, b.y) - reach, top, bottom);
    const int y_end = bound(std::max(a.y, b.y) + reach + 1, top, bottom);
    for (int y = y_begin; y < y_end; ++y) {
      for (int x = x_begin; x < x_end; ++x) {
        const double distance = DistanceToSegment(x + 0.5, y + 0.5, a, b);
        const float share =
            static_cast<float>(std::clamp(reach - distance, 0.0, 1.0));
        float& pixel = coverage[static_cast<size_t>(y - top) * image.width + x];
        pixel = std::max(pixel, share);
      }
    }
  }
  for (int y = top; y < bottom; ++y) {
    for (int x = 0; x < image.width; ++x) {
      const double share =
          opacity * coverage[static_cast<size_t>(y - top) * image.width + x];
      if (share <= 0) continue;
      uint8_t* pixel = image.At(x, y);
      for (int c = 0; c < 3; ++c) {
        pixel[c] = static_cast<uint8_t>(
            std::lround(pixel[c] + share * (color[c] - pixel[c])));
      }
    }
  }
}

void DrawImage(Image& image, int x, int y, const Image& source) {
  CHECK_EQ(image.channels, 3);
  const Image colour = WithChannels(source, 3);
  for (int row = std::max(0, -y);
       row < std::min(colour.height, image.height - y); ++row) {
    for (int column = std::max(0, -x);
         column < std::min(colour.width, image.width - x); ++column) {
      std::copy_n(colour.At(column, row), 3, image.At(x + column, y + row));
    }
  }
}

}  // namespace trireme
