//! How it looks: one palette per theme, one type scale, one set of distances.

mod palette;

pub use palette::{Palette, Tone};

use egui::{
    Color32, CornerRadius, FontData, FontDefinitions, FontFamily, FontId, Margin, RichText, Shadow, Stroke, TextStyle, Theme,
    vec2,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What the person chose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ThemeChoice {
    #[default]
    System,
    Light,
    Dark,
}

impl ThemeChoice {
    /// Its name, as shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "Follow the system",
            Self::Light => "Light",
            Self::Dark => "Dark",
        }
    }

    /// The next one, for the button that goes round.
    pub fn next(self) -> Self {
        match self {
            Self::System => Self::Light,
            Self::Light => Self::Dark,
            Self::Dark => Self::System,
        }
    }

    /// As egui wants it.
    pub fn preference(self) -> egui::ThemePreference {
        match self {
            Self::System => egui::ThemePreference::System,
            Self::Light => egui::ThemePreference::Light,
            Self::Dark => egui::ThemePreference::Dark,
        }
    }
}

/// Sizes of type, in points.
pub const HEADING: f32 = 17.0;
pub const BODY: f32 = 13.0;
pub const SMALL: f32 = 11.5;
pub const CAPTION: f32 = 10.5;

/// The corner of buttons, pictures and fields.
pub const CORNER: CornerRadius = CornerRadius::same(5);

fn semibold() -> FontFamily {
    FontFamily::Name("semibold".into())
}

/// Body size.
pub fn body() -> FontId {
    FontId::proportional(BODY)
}

/// Body size, heavier.
pub fn strong() -> FontId {
    FontId::new(BODY, semibold())
}

/// The second line of a row.
pub fn small() -> FontId {
    FontId::proportional(SMALL)
}

/// Small words in pills.
pub fn tiny() -> FontId {
    FontId::proportional(CAPTION)
}

/// Headings of sections, in capitals.
pub fn caption() -> FontId {
    FontId::new(CAPTION, semibold())
}

/// The name of what is shown.
pub fn heading() -> FontId {
    FontId::new(HEADING, semibold())
}

/// Heavier text.
pub fn bold(text: impl Into<String>) -> RichText {
    RichText::new(text).font(strong())
}

/// The palette of the theme in use.
pub fn palette(ui: &egui::Ui) -> &'static Palette {
    Palette::of(ui.visuals().dark_mode)
}

/// Puts fonts and styles in place; once, at the start.
pub fn install(ctx: &egui::Context) {
    ctx.set_fonts(fonts());
    // The table of actions has the keys of the scale.
    ctx.options_mut(|o| o.zoom_with_keyboard = false);
    ctx.set_style_of(Theme::Dark, style(Theme::Dark));
    ctx.set_style_of(Theme::Light, style(Theme::Light));
}

fn fonts() -> FontDefinitions {
    let mut fonts = FontDefinitions::default();
    let regular = FontData::from_static(include_bytes!("../../../assets/fonts/Inter-Regular.otf"));
    let heavy = FontData::from_static(include_bytes!("../../../assets/fonts/Inter-SemiBold.otf"));
    fonts.font_data.insert("inter".into(), Arc::new(regular));
    fonts.font_data.insert("inter-semibold".into(), Arc::new(heavy));
    // What Inter lacks (symbols) comes from egui's own fonts behind it.
    let fallback = fonts.families.get(&FontFamily::Proportional).cloned().unwrap_or_default();
    let behind = |first: &str| std::iter::once(first.to_owned()).chain(fallback.iter().cloned()).collect::<Vec<_>>();
    fonts.families.insert(FontFamily::Proportional, behind("inter"));
    fonts.families.insert(semibold(), behind("inter-semibold"));
    fonts
}

fn style(theme: Theme) -> egui::Style {
    let p = Palette::of(theme == Theme::Dark);
    let mut style = egui::Style { visuals: theme.default_visuals(), ..Default::default() };
    style.text_styles = [
        (TextStyle::Heading, heading()),
        (TextStyle::Body, body()),
        (TextStyle::Button, body()),
        (TextStyle::Small, small()),
        (TextStyle::Monospace, FontId::monospace(BODY)),
    ]
    .into();
    style.spacing.item_spacing = vec2(8.0, 6.0);
    style.spacing.button_padding = vec2(10.0, 5.0);
    style.spacing.interact_size = vec2(28.0, 26.0);
    style.spacing.menu_margin = Margin::same(6);
    style.spacing.window_margin = Margin::same(18);
    style.spacing.tooltip_width = 340.0;
    style.interaction.tooltip_delay = 0.35;
    style.animation_time = 0.1;

    let v = &mut style.visuals;
    v.override_text_color = None;
    v.weak_text_color = Some(p.weak);
    v.panel_fill = p.ground;
    v.window_fill = p.panel;
    v.window_stroke = Stroke::new(1.0, p.line);
    v.window_corner_radius = CornerRadius::same(8);
    v.menu_corner_radius = CornerRadius::same(6);
    v.extreme_bg_color = p.field;
    v.text_edit_bg_color = Some(p.field);
    v.faint_bg_color = p.raised;
    v.code_bg_color = p.raised;
    v.hyperlink_color = p.accent;
    v.warn_fg_color = p.warn;
    v.error_fg_color = p.bad;
    v.selection.bg_fill = p.accent.gamma_multiply(0.35);
    v.selection.stroke = Stroke::new(1.0, p.accent);
    v.disabled_alpha = 0.45;
    v.popup_shadow =
        Shadow { offset: [0, 4], blur: 14, spread: 0, color: Color32::from_black_alpha(if v.dark_mode { 110 } else { 40 }) };
    v.window_shadow =
        Shadow { offset: [0, 10], blur: 30, spread: 0, color: Color32::from_black_alpha(if v.dark_mode { 130 } else { 50 }) };

    let widgets = &mut v.widgets;
    for (w, fill, line, text) in [
        (&mut widgets.noninteractive, p.panel, p.line, p.text),
        (&mut widgets.inactive, p.raised, p.line, p.text),
        (&mut widgets.hovered, p.hover, p.line_strong, p.text),
        (&mut widgets.active, p.hover, p.accent, p.text),
        (&mut widgets.open, p.hover, p.line_strong, p.text),
    ] {
        w.bg_fill = fill;
        w.weak_bg_fill = fill;
        w.bg_stroke = Stroke::new(1.0, line);
        w.fg_stroke = Stroke::new(1.0, text);
        w.corner_radius = CORNER;
        w.expansion = 0.0;
    }
    style
}
