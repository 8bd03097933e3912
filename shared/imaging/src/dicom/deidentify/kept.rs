//! The attributes that survive, and in which form. Everything that is not here goes: what PS3.15 table E.1-1 names, private attributes,
//! and whatever a later edition or a vendor invents.

use dicom_core::{Tag, VR};
use dicom_dictionary_std::{tags, uids};

/// Whether an attribute is kept always or by an option of PS3.15 annex E.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    Always,
    /// Retain Device Identity.
    Device,
    /// Retain Patient Characteristics.
    Characteristics,
}

/// The attribute's value representation and when it is kept; `None` where it never is.
pub(super) fn kept(tag: Tag) -> Option<(VR, When)> {
    let listed = |list: &[(Tag, VR)]| list.iter().find(|(other, _)| *other == tag).map(|(_, vr)| *vr);
    None.or_else(|| listed(ALWAYS).map(|vr| (vr, When::Always)))
        .or_else(|| listed(DEVICE).map(|vr| (vr, When::Device)))
        .or_else(|| listed(CHARACTERISTICS).map(|vr| (vr, When::Characteristics)))
}

/// Classes of image objects whose attributes are on the list; of others what makes them readable would go as well.
pub(super) const CLASSES: [&str; 13] = [
    uids::CT_IMAGE_STORAGE,
    uids::ENHANCED_CT_IMAGE_STORAGE,
    uids::MR_IMAGE_STORAGE,
    uids::ENHANCED_MR_IMAGE_STORAGE,
    uids::COMPUTED_RADIOGRAPHY_IMAGE_STORAGE,
    uids::DIGITAL_X_RAY_IMAGE_STORAGE_FOR_PRESENTATION,
    uids::DIGITAL_X_RAY_IMAGE_STORAGE_FOR_PROCESSING,
    uids::X_RAY_ANGIOGRAPHIC_IMAGE_STORAGE,
    uids::X_RAY_RADIOFLUOROSCOPIC_IMAGE_STORAGE,
    uids::SECONDARY_CAPTURE_IMAGE_STORAGE,
    uids::MULTI_FRAME_GRAYSCALE_BYTE_SECONDARY_CAPTURE_IMAGE_STORAGE,
    uids::MULTI_FRAME_GRAYSCALE_WORD_SECONDARY_CAPTURE_IMAGE_STORAGE,
    uids::MULTI_FRAME_TRUE_COLOR_SECONDARY_CAPTURE_IMAGE_STORAGE,
];

/// What the object is, where it lies, how its values are to be read, and how it was exposed. UI is replaced, but for classes of the standard.
const ALWAYS: &[(Tag, VR)] = &[
    (tags::IMAGE_TYPE, VR::CS),
    (tags::SOP_CLASS_UID, VR::UI),
    (tags::SOP_INSTANCE_UID, VR::UI),
    (tags::MODALITY, VR::CS),
    (tags::PRESENTATION_INTENT_TYPE, VR::CS),
    (tags::CONVERSION_TYPE, VR::CS),
    (tags::STUDY_INSTANCE_UID, VR::UI),
    (tags::SERIES_INSTANCE_UID, VR::UI),
    (tags::FRAME_OF_REFERENCE_UID, VR::UI),
    (tags::SERIES_NUMBER, VR::IS),
    (tags::ACQUISITION_NUMBER, VR::IS),
    (tags::INSTANCE_NUMBER, VR::IS),
    (tags::LATERALITY, VR::CS),
    (tags::IMAGE_LATERALITY, VR::CS),
    (tags::PATIENT_POSITION, VR::CS),
    (tags::PATIENT_ORIENTATION, VR::CS),
    (tags::BODY_PART_EXAMINED, VR::CS),
    (tags::VIEW_POSITION, VR::CS),
    // Geometry.
    (tags::PIXEL_SPACING, VR::DS),
    (tags::IMAGER_PIXEL_SPACING, VR::DS),
    (tags::NOMINAL_SCANNED_PIXEL_SPACING, VR::DS),
    (tags::PIXEL_SPACING_CALIBRATION_TYPE, VR::CS),
    (tags::ESTIMATED_RADIOGRAPHIC_MAGNIFICATION_FACTOR, VR::DS),
    (tags::DISTANCE_SOURCE_TO_DETECTOR, VR::DS),
    (tags::DISTANCE_SOURCE_TO_PATIENT, VR::DS),
    (tags::IMAGE_POSITION_PATIENT, VR::DS),
    (tags::IMAGE_ORIENTATION_PATIENT, VR::DS),
    (tags::SLICE_LOCATION, VR::DS),
    (tags::SLICE_THICKNESS, VR::DS),
    (tags::SPACING_BETWEEN_SLICES, VR::DS),
    (tags::PIXEL_ASPECT_RATIO, VR::IS),
    (tags::GANTRY_DETECTOR_TILT, VR::DS),
    (tags::TABLE_HEIGHT, VR::DS),
    (tags::RECONSTRUCTION_DIAMETER, VR::DS),
    (tags::DATA_COLLECTION_DIAMETER, VR::DS),
    // Exposure.
    (tags::KVP, VR::DS),
    (tags::EXPOSURE_TIME, VR::IS),
    (tags::X_RAY_TUBE_CURRENT, VR::IS),
    (tags::EXPOSURE, VR::IS),
    (tags::EXPOSURE_INU_AS, VR::IS),
    (tags::GENERATOR_POWER, VR::IS),
    (tags::FOCAL_SPOTS, VR::DS),
    (tags::ROTATION_DIRECTION, VR::CS),
    (tags::SPIRAL_PITCH_FACTOR, VR::FD),
    (tags::SINGLE_COLLIMATION_WIDTH, VR::FD),
    (tags::TOTAL_COLLIMATION_WIDTH, VR::FD),
    (tags::TABLE_SPEED, VR::FD),
    (tags::GRID, VR::CS),
    // Magnetic resonance.
    (tags::SCANNING_SEQUENCE, VR::CS),
    (tags::SEQUENCE_VARIANT, VR::CS),
    (tags::MR_ACQUISITION_TYPE, VR::CS),
    (tags::REPETITION_TIME, VR::DS),
    (tags::ECHO_TIME, VR::DS),
    (tags::ECHO_TRAIN_LENGTH, VR::IS),
    (tags::INVERSION_TIME, VR::DS),
    (tags::FLIP_ANGLE, VR::DS),
    (tags::MAGNETIC_FIELD_STRENGTH, VR::DS),
    (tags::DETECTOR_TYPE, VR::CS),
    (tags::FIELD_OF_VIEW_SHAPE, VR::CS),
    // How stored values are to be read. The image pixel module itself is written anew.
    (tags::NUMBER_OF_FRAMES, VR::IS),
    (tags::PIXEL_PADDING_VALUE, VR::US),
    (tags::PIXEL_PADDING_RANGE_LIMIT, VR::US),
    (tags::PIXEL_INTENSITY_RELATIONSHIP, VR::CS),
    (tags::PIXEL_INTENSITY_RELATIONSHIP_SIGN, VR::SS),
    (tags::RESCALE_INTERCEPT, VR::DS),
    (tags::RESCALE_SLOPE, VR::DS),
    (tags::RESCALE_TYPE, VR::LO),
    (tags::WINDOW_CENTER, VR::DS),
    (tags::WINDOW_WIDTH, VR::DS),
    (tags::VOILUT_FUNCTION, VR::CS),
    (tags::VOILUT_SEQUENCE, VR::SQ),
    (tags::MODALITY_LUT_SEQUENCE, VR::SQ),
    (tags::LUT_DESCRIPTOR, VR::US),
    (tags::LUT_DATA, VR::OW),
    (tags::MODALITY_LUT_TYPE, VR::LO),
    (tags::PRESENTATION_LUT_SHAPE, VR::CS),
    (tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR, VR::US),
    (tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR, VR::US),
    (tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR, VR::US),
    (tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DATA, VR::OW),
    (tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DATA, VR::OW),
    (tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA, VR::OW),
    (tags::LOSSY_IMAGE_COMPRESSION, VR::CS),
    (tags::LOSSY_IMAGE_COMPRESSION_RATIO, VR::DS),
    (tags::LOSSY_IMAGE_COMPRESSION_METHOD, VR::CS),
    // Enhanced objects (PS3.3 C.7.6.16).
    (tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, VR::SQ),
    (tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, VR::SQ),
    (tags::PIXEL_MEASURES_SEQUENCE, VR::SQ),
    (tags::PLANE_POSITION_SEQUENCE, VR::SQ),
    (tags::PLANE_ORIENTATION_SEQUENCE, VR::SQ),
    (tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE, VR::SQ),
    (tags::FRAME_VOILUT_SEQUENCE, VR::SQ),
    (tags::FRAME_CONTENT_SEQUENCE, VR::SQ),
    (tags::STACK_ID, VR::SH),
    (tags::IN_STACK_POSITION_NUMBER, VR::UL),
    (tags::DIMENSION_INDEX_VALUES, VR::UL),
    (tags::DIMENSION_ORGANIZATION_SEQUENCE, VR::SQ),
    (tags::DIMENSION_ORGANIZATION_UID, VR::UI),
    (tags::DIMENSION_ORGANIZATION_TYPE, VR::CS),
    (tags::DIMENSION_INDEX_SEQUENCE, VR::SQ),
    (tags::DIMENSION_INDEX_POINTER, VR::AT),
    (tags::FUNCTIONAL_GROUP_POINTER, VR::AT),
    (tags::CT_IMAGE_FRAME_TYPE_SEQUENCE, VR::SQ),
    (tags::FRAME_TYPE, VR::CS),
    (tags::PIXEL_PRESENTATION, VR::CS),
    (tags::VOLUMETRIC_PROPERTIES, VR::CS),
];

/// Words about the machine: with the option Retain Device Identity alone, since somebody may have typed them.
const DEVICE: &[(Tag, VR)] = &[
    (tags::MANUFACTURER, VR::LO),
    (tags::MANUFACTURER_MODEL_NAME, VR::LO),
    (tags::DEVICE_SERIAL_NUMBER, VR::LO),
    (tags::SOFTWARE_VERSIONS, VR::LO),
    (tags::STATION_NAME, VR::SH),
    (tags::DETECTOR_ID, VR::SH),
    (tags::CONVOLUTION_KERNEL, VR::SH),
    (tags::FILTER_TYPE, VR::SH),
];

const CHARACTERISTICS: &[(Tag, VR)] = &[
    (tags::PATIENT_SEX, VR::CS),
    (tags::PATIENT_AGE, VR::AS),
    (tags::PATIENT_SIZE, VR::DS),
    (tags::PATIENT_WEIGHT, VR::DS),
];

/// The defined terms of a code string (PS3.3; PS3.16 annex L for parts of the body, those of the trunk). A code string holds any capitals
/// by its representation, a name too.
pub(super) fn terms(tag: Tag) -> &'static [&'static str] {
    match tag {
        tags::IMAGE_TYPE | tags::FRAME_TYPE => &[
            "ORIGINAL",
            "DERIVED",
            "MIXED",
            "PRIMARY",
            "SECONDARY",
            "AXIAL",
            "LOCALIZER",
            "MPR",
            "MIP",
            "MINIP",
            "VOLUME",
            "PROJECTION",
            "PROJECTION IMAGE",
            "REFORMATTED",
            "AVERAGE",
            "RESAMPLED",
            "FILTERED",
            "NONE",
            OTHER,
        ],
        tags::MODALITY => &[
            "CT", "MR", "DX", "CR", "RG", "RF", "XA", "US", "NM", "PT", "MG", "IO", "PX", "OT", "SC", "XC", "ES", "SM",
            "OP", "RTDOSE", "RTIMAGE",
        ],
        tags::PRESENTATION_INTENT_TYPE => &["FOR PRESENTATION", "FOR PROCESSING"],
        tags::CONVERSION_TYPE => &["DV", "DI", "DF", "WSD", "SD", "SI", "DRW", "SYN"],
        tags::LATERALITY | tags::IMAGE_LATERALITY => &["R", "L", "U", "B"],
        tags::PATIENT_POSITION => &[
            "HFP", "HFS", "HFDR", "HFDL", "FFP", "FFS", "FFDR", "FFDL", "LFP", "LFS", "RFP", "RFS", "AFDR", "AFDL",
            "PFDR", "PFDL",
        ],
        tags::PATIENT_ORIENTATION => &[
            "A", "P", "R", "L", "H", "F", "AR", "AL", "AH", "AF", "PR", "PL", "PH", "PF", "RA", "RP", "RH", "RF", "LA",
            "LP", "LH", "LF", "HA", "HP", "HR", "HL", "FA", "FP", "FR", "FL",
        ],
        tags::BODY_PART_EXAMINED => &[
            "ABDOMEN",
            "ABDOMENPELVIS",
            "BLADDER",
            "CHEST",
            "CHESTABDOMEN",
            "CHESTABDPELVIS",
            "HEART",
            "KIDNEY",
            "LIVER",
            "LSPINE",
            "LUNG",
            "PELVIS",
            "SPINE",
            "TSPINE",
            "URETER",
            "WHOLEBODY",
        ],
        tags::VIEW_POSITION => &["AP", "PA", "LL", "RL", "RLD", "LLD", "RLO", "LLO", "LAT"],
        tags::PIXEL_SPACING_CALIBRATION_TYPE => &["GEOMETRY", "FIDUCIAL"],
        tags::ROTATION_DIRECTION => &["CW", "CC"],
        tags::GRID => &["FIXED", "FOCUSED", "RECIPROCATING", "PARALLEL", "CROSSED", "NONE"],
        tags::SCANNING_SEQUENCE => &["SE", "IR", "GR", "EP", "RM"],
        tags::SEQUENCE_VARIANT => &["SK", "MTC", "SS", "TRSS", "SP", "MP", "OSP", "NONE"],
        tags::MR_ACQUISITION_TYPE => &["2D", "3D"],
        tags::DETECTOR_TYPE => &["DIRECT", "SCINTILLATOR", "STORAGE", "FILM"],
        tags::FIELD_OF_VIEW_SHAPE => &["RECTANGLE", "ROUND", "HEXAGONAL"],
        tags::PIXEL_INTENSITY_RELATIONSHIP => &["LIN", "LOG", "DISP"],
        tags::VOILUT_FUNCTION => &["LINEAR", "LINEAR_EXACT", "SIGMOID"],
        tags::PRESENTATION_LUT_SHAPE => &["IDENTITY", "INVERSE"],
        tags::LOSSY_IMAGE_COMPRESSION => &["00", "01"],
        tags::LOSSY_IMAGE_COMPRESSION_METHOD => {
            &["ISO_10918_1", "ISO_14495_1", "ISO_15444_1", "ISO_15444_15", "ISO_18181_1"]
        }
        tags::PIXEL_PRESENTATION => &["MONOCHROME", "COLOR", "MIXED", "TRUE_COLOR"],
        tags::DIMENSION_ORGANIZATION_TYPE => &["3D", "3D_TEMPORAL", "TILED_FULL", "TILED_SPARSE"],
        tags::VOLUMETRIC_PROPERTIES => &["VOLUME", "SAMPLED", "DISTORTED", "MIXED"],
        tags::PATIENT_SEX => &["M", "F", "O"],
        tags::RESCALE_TYPE | tags::MODALITY_LUT_TYPE => &["HU", "US", "OD", "PCT", "Z_EFF", "ED", "EDW"],
        _ => &[],
    }
}

/// What stands for a value of Image Type or Frame Type that the standard does not define: what comes before and behind it is kept.
pub(super) const OTHER: &str = "OTHER";
