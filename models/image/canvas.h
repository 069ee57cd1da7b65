// Drawing on an Image: rectangles, smooth lines and text, for pictures that
// people look at. What falls outside the picture is cut off. Coordinates are
// pixels from the top left corner. Any thread; one writer per picture.

#ifndef TRIREME_MODELS_IMAGE_CANVAS_H_
#define TRIREME_MODELS_IMAGE_CANVAS_H_

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "models/image/image.h"

namespace trireme {

using Color = std::array<uint8_t, 3>;

struct Point {
  double x;
  double y;
};

// Text is a 5x9 bitmap font for printable ASCII (seven rows above the base
// line, two below), each of its dots a square of `scale` pixels; any other byte
// shows as a box.
inline constexpr int kGlyphWidth = 5;
inline constexpr int kGlyphAdvance = 6;
inline constexpr int kGlyphHeight = 9;
inline constexpr int kCapitalHeight = 7;

int TextWidth(std::string_view text, int scale);

// All on RGB pictures.
void DrawRectangle(Image& image, int x, int y, int width, int height,
                   Color color);

// (x, y) is the top left corner of the first character.
void DrawText(Image& image, int x, int y, std::string_view text, int scale,
              Color color);

// A connected line through `points`, `width` pixels wide, antialiased, mixed
// with what is there by `opacity` in [0, 1]; clipped to rows [top, bottom).
void DrawPolyline(Image& image, std::span<const Point> points, double width,
                  double opacity, int top, int bottom, Color color);

// Copies a gray or RGB picture to (x, y).
void DrawImage(Image& image, int x, int y, const Image& source);

}  // namespace trireme

#endif  // TRIREME_MODELS_IMAGE_CANVAS_H_
